"""How many threads work on a step: all, unless another process takes their cores.

Threads wait for each other some hundred times a step. Where one of them has lost its core, all wait until the
system gives it back, which takes a thousand times as long as the work; then fewer threads are faster. What they
compute does not depend on their number.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Hashable

SLOWER = 1.6  # times the usual time: something is amiss
N_PROBED = 3  # steps with a number of threads before it is judged
PROBE_FIRST = 8  # steps before all numbers are tried once: they may have been disturbed from the start
PROBE_AGAIN_S = 0.25, 4.0  # work done with fewer threads before all are tried again: at first, and at last


class Crew:
    """Chooses a number of threads for the next steps, and learns from how long steps took."""

    def __init__(self, n_max: int):
        self.n_max = self.n_threads = n_max
        self._numbers = sorted({n_max, max(1, n_max - 1), max(1, n_max // 2)}, reverse=True)
        self._usual: dict[Hashable, float] = {}  # of all threads, undisturbed, for each kind of step
        self._recent: list[float] = []
        self._kind: Hashable = None
        self._to_probe: list[int] = []
        self._probed: dict[int, float] = {}
        self._n_steps, self._worked_s, self._patience_s = 0, 0.0, PROBE_AGAIN_S[0]
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
            self._kind, self._recent = kind, []
            if self._to_probe:
                self.n_threads, self._to_probe = self.n_max, []
        self._recent = [*self._recent[1 - N_PROBED :], seconds]
        self._n_steps += 1
        if self._to_probe:
            if len(self._recent) == N_PROBED:
                self._probed[self._to_probe.pop(0)] = statistics.median(self._recent)
                self._go_on()
        elif self.n_threads < self.n_max:
            self._worked_s += seconds
            if self._worked_s > self._patience_s:
                self._patience_s = min(2 * self._patience_s, PROBE_AGAIN_S[1])
                self._probe()
        else:
            # a context that grows makes steps slower, little by little
            usual = self._usual[kind] = min(seconds, self._usual.get(kind, seconds) * 1.01)
            is_slow = len(self._recent) == N_PROBED and min(self._recent) > SLOWER * usual
            if is_slow or self._n_steps == PROBE_FIRST:
                self._probe()

    def _probe(self) -> None:
        self._to_probe, self._probed = list(self._numbers), {}
        self._go_on()

    def _go_on(self) -> None:
        """To the next number to try; after the last, to the fastest."""
        self._recent, self._worked_s = [], 0.0
        if self._to_probe:
            self.n_threads = self._to_probe[0]
            return
        self.n_threads = min(self._probed, key=lambda n: self._probed[n])
        if self.n_threads == self.n_max:
            self._usual[self._kind], self._patience_s = self._probed[self.n_max], PROBE_AGAIN_S[0]
