"""A progress bar in plain text: a rate, a time left, and a true final line."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from typing import TextIO, TypeVar

from llm_magic.visible import show_controls

Value = TypeVar("Value")
SHOW_AFTER_S = 0.5
BAR_WIDTH = 24


def show_progress(label: str, steps: Generator[float, None, Value], stream: TextIO | None = None) -> Value:
    """Run `steps`, which yields the share that is done, behind a bar; returns its value.

    Nothing is shown for what takes less than half a second.
    """
    stream, label = stream or sys.stderr, show_controls(label)
    started, shown_at, share, is_shown = time.monotonic(), 0.0, 0.0, False
    try:
        while True:
            share = next(steps)
            now = time.monotonic()
            if now - started >= SHOW_AFTER_S and now - shown_at >= 0.1:
                stream.write("\r" + format_bar(label, share, now - started))
                stream.flush()
                shown_at, is_shown = now, True
    except StopIteration as done:
        if is_shown:
            stream.write(f"\r{label}: done in {time.monotonic() - started:.1f} s".ljust(79) + "\n")
            stream.flush()
        return done.value
    except BaseException:
        if is_shown:
            stream.write(f"\r{label}: stopped at {share:.0%}".ljust(79) + "\n")
            stream.flush()
        raise


def format_bar(label: str, share: float, elapsed_s: float) -> str:
    """One line of a bar, 79 characters wide.

    >>> format_bar("loading", 0.5, 2.0).rstrip()
    'loading  50% ████████████             2 s left'
    """
    share = min(1.0, max(0.0, share))
    bar = ("█" * round(share * BAR_WIDTH)).ljust(BAR_WIDTH)
    # an early estimate is a guess: none is better
    left = f" {elapsed_s * (1 - share) / share:.0f} s left" if share > 0.1 and elapsed_s > 1 else ""
    return f"{label} {share:4.0%} {bar}{left}".ljust(79)
