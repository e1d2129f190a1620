"""How many threads work on a step: all, unless another process keeps their cores.

Threads wait for each other some hundred times a step. Where one of them has lost its core, all wait until the
system gives it back, which takes a thousand times as long as the work; then fewer threads are faster, if that lasts.
Steps are judged by the mean over a window, not one by one: a neighbour that works now and then (a browser that paints)
makes a few steps slow, one that always works makes some of them so long that they outweigh all others. What threads
compute does not depend on their number.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable

WINDOW_S, FIRST_WINDOW_S, WINDOW_STEPS = 0.1, 0.03, 3  # a window is so long (or so, at first), and has so many steps
SLOWER = 1.6  # times the usual mean: something is amiss
N_SLOW = 2  # windows in a row, then other numbers are tried
GROWTH = 1.05  # of the usual mean a window: a context that grows makes steps slower, little by little
PROBE_AGAIN_S = 0.25, 4.0  # work done with fewer threads before all are tried again: at first, and at last


class Crew:
    """Chooses a number of threads for the next steps, and learns from how long steps took."""

    def __init__(self, n_max: int):
        self.n_max = self.n_threads = n_max
        self._numbers = sorted({n_max, max(1, n_max - 1), max(1, n_max // 2)}, reverse=True)
        self._usual: dict[Hashable, float] = {}  # means of all threads, undisturbed, for each kind of step
        self._kind: Hashable = None
        self._window_s, self._window_steps = 0.0, 0
        self._n_slow = 0
        self._to_probe: list[int] = []
        self._probed: dict[int, float] = {}
        self._is_settled = False  # all numbers were tried once
        self._worked_s, self._patience_s = 0.0, PROBE_AGAIN_S[0]
        self._lock = threading.Lock()

    def record(self, kind: Hashable, seconds: float) -> None:
        """A step of some kind, with `n_threads`, took so long; sets the number for the next one."""
        # what another thread's step takes beside this one says nothing about either
        if len(self._numbers) > 1 and self._lock.acquire(blocking=False):
            try:
                self._learn(kind, seconds)
            finally:
                self._lock.release()

    def _learn(self, kind: Hashable, seconds: float) -> None:
        if kind != self._kind:  # times of unlike steps do not compare
            self._kind, self._n_slow = kind, 0
            self._window_s, self._window_steps = 0.0, 0
            if self._to_probe:
                self.n_threads, self._to_probe = self.n_max, []
        self._window_s += seconds
        self._window_steps += 1
        if self._window_s >= (WINDOW_S if self._is_settled else FIRST_WINDOW_S) and self._window_steps >= WINDOW_STEPS:
            mean_s, window_s = self._window_s / self._window_steps, self._window_s
            self._window_s, self._window_steps = 0.0, 0
            self._judge(mean_s, window_s)

    def _judge(self, mean_s: float, window_s: float) -> None:
        """A window is full."""
        if self._to_probe:
            self._probed[self._to_probe.pop(0)] = mean_s
            self._go_on()
        elif self.n_threads < self.n_max:
            self._worked_s += window_s
            if self._worked_s > self._patience_s:
                self._patience_s = min(2 * self._patience_s, PROBE_AGAIN_S[1])
                self._probe()
        else:
            usual_s = self._usual[self._kind] = min(mean_s, self._usual.get(self._kind, mean_s) * GROWTH)
            self._n_slow = self._n_slow + 1 if mean_s > SLOWER * usual_s else 0
            # what is usual is not known at first: threads may have been disturbed from the start
            if self._n_slow == N_SLOW or not self._is_settled:
                self._probe()

    def _probe(self) -> None:
        self._to_probe, self._probed, self._n_slow = list(self._numbers), {}, 0
        self._go_on()

    def _go_on(self) -> None:
        """To the next number to try; after the last, to the fastest."""
        self._worked_s = 0.0
        if self._to_probe:
            self.n_threads = self._to_probe[0]
            return
        self._is_settled = True
        self.n_threads = min(self._probed, key=lambda n: self._probed[n])
        if self.n_threads == self.n_max:
            self._patience_s = PROBE_AGAIN_S[0]
