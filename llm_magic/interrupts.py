"""An interrupt while a model generates ends it between two tokens, so that nothing is lost or torn."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interrupt_calls(stop: Callable[[], None]) -> Iterator[None]:
    """Within this, the first interrupt calls `stop`; a second one raises KeyboardInterrupt at once.

    Only the main thread hears interrupts; in another this changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    was_heard = False

    def hear(number, frame):
        nonlocal was_heard
        if was_heard:
            raise KeyboardInterrupt
        was_heard = True
        stop()

    before = signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
