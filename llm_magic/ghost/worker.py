"""A thread that makes suggestions: the latest request wins, there is never a queue."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator

from llm_magic.ghost.request import Request

Make = Callable[[Request, Callable[[], bool]], Iterable[str]]  # growing suggestions, while they are wanted
Deliver = Callable[[str, bool], None]  # the suggestion so far, and whether it is complete


class Worker:
    """`ask` ends what is being made, before its next token. `make` gives the growing suggestions of a request."""

    def __init__(self, make: Make):
        self._make = make
        self._asked = threading.Condition()
        self._latest: tuple[Request, Deliver] | None = None
        self._number = 0
        self._thread: threading.Thread | None = None

    def ask(self, request: Request, deliver: Deliver) -> None:
        """Make suggestions for a request, and no more for those before it. Returns at once."""
        with self._asked:
            self._number += 1
            self._latest = request, deliver
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="llm_magic ghost text", daemon=True)
                self._thread.start()
            self._asked.notify()

    def cancel(self) -> None:
        """Make no more suggestions for what was asked."""
        with self._asked:
            self._number += 1
            self._latest = None

    def close(self) -> None:
        """End the thread."""
        with self._asked:
            self._number += 1
            self._latest, thread, self._thread = None, self._thread, None
            self._asked.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join(5)

    def _work(self) -> None:
        me = threading.current_thread()
        while True:
            with self._asked:
                self._asked.wait_for(lambda: self._latest is not None or self._thread is not me)
                if self._thread is not me:
                    return
                (request, deliver), self._latest, number = self._latest, None, self._number
            with contextlib.suppress(Exception):  # whoever asked has gone: others may ask yet
                text = ""
                for text in self._suggestions(request, lambda number=number: self._number == number):
                    deliver(text, False)
                if self._number == number:
                    deliver(text, True)

    def _suggestions(self, request: Request, is_wanted: Callable[[], bool]) -> Iterator[str]:
        try:
            for text in self._make(request, is_wanted):
                if not is_wanted():
                    return
                yield text
        except Exception:  # no model, no room: at the cursor nobody wants to read of it
            return
