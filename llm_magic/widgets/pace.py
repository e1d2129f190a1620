"""How often a page is told what is new: seldom enough that its painting leaves the model its processors."""

from __future__ import annotations

import statistics

SHORTEST_S, LONGEST_S = 0.1, 0.5
MAX_SHARE = 0.03  # of the model's time that the page may take
FIRST_S = 0.2  # until the page's share is known
PAINTED_WITHIN_S = 0.1  # of a message: the steps that it can slow down


class Pace:
    """Learns from steps what a message costs: those just behind it against the usual ones later on."""

    def __init__(self):
        self.interval_s = FIRST_S
        self._steps_s: list[float] = []
        self._costs_s: list[float] = []

    def note_step(self, seconds: float) -> None:
        """A token took so long."""
        self._steps_s.append(seconds)

    def note_message(self) -> None:
        """A message is sent: the steps before it tell what the last one cost."""
        steps_s, self._steps_s = self._steps_s, []
        n_behind, passed_s = 0, 0.0
        while n_behind < len(steps_s) and passed_s < PAINTED_WITHIN_S:
            passed_s += steps_s[n_behind]
            n_behind += 1
        later_s = steps_s[n_behind:]
        if len(later_s) < 4:  # of a slow model too few to tell
            return
        # what a machine does besides makes steps longer at any time, and so counts on neither side
        self._costs_s = [*self._costs_s[-4:], passed_s - n_behind * statistics.median(later_s)]
        self.interval_s = min(LONGEST_S, max(SHORTEST_S, statistics.median(self._costs_s) / MAX_SHARE))
