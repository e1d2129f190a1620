"""A progress bar in plain text: a rate, a time left, and a true final line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from typing import TextIO, TypeVar

from llm_magic.visible import show_controls

Value = TypeVar("Value")
Track = Callable[[str, Generator], object]  # shows the shares that a generator yields, and returns its value
SHOW_AFTER_S = 0.5
UPDATE_S = 0.1
BAR_WIDTH = 24


def show_progress(label: str, steps: Generator[float, None, Value], stream: TextIO | None = None) -> Value:
    """Run `steps`, which yields the share that is done, behind a bar; returns its value.

    Nothing is shown for what takes less than half a second.
    """
    stream, label = stream or sys.stderr, show_controls(label)

    def draw(share: float, elapsed_s: float) -> None:
        stream.write("\r" + format_bar(label, share, elapsed_s))
        stream.flush()

    def leave(line: str) -> None:
        stream.write("\r" + line.ljust(79) + "\n")
        stream.flush()

    return follow_steps(label, steps, draw, leave)


def follow_steps(
    label: str,
    steps: Generator[float, None, Value],
    draw: Callable[[float, float], None],
    leave: Callable[[str], None],
) -> Value:
    """Run `steps`; where that takes a while, `draw` the share and the seconds now and then, and `leave` a last line."""
    started, drawn_at, share = time.monotonic(), 0.0, 0.0
    try:
        while True:
            share = next(steps)
            now = time.monotonic()
            if now - started >= SHOW_AFTER_S and now - drawn_at >= UPDATE_S:
                draw(share, now - started)
                drawn_at = now
    except StopIteration as done:
        if drawn_at:
            leave(f"{label}: done in {time.monotonic() - started:.1f} s")
        return done.value
    except BaseException:
        if drawn_at:
            leave(f"{label}: stopped at {share:.0%}")
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


def finish_steps(steps: Generator[float, None, Value]) -> Value:
    """The value of a generator, which nobody watches."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value
