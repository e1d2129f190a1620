"""How often a page is told what is new: seldom enough that its painting leaves the model its processors."""

from __future__ import annotations

import statistics

SHORTEST_S, LONGEST_S = 0.1, 0.5
MAX_SHARE = 0.03  # of the model's time that the page may take
FIRST_S = 0.2  # until the page's share is known


class Pace:
    """Learns from steps what a message costs: those that it slows down against the undisturbed ones beside them."""

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
        if len(steps_s) < 8:  # of a slow model too few to tell
            return
        usual_s = statistics.quantiles(steps_s, n=4)[0]
        self._costs_s = [*self._costs_s[-4:], sum(max(0.0, step_s - usual_s) for step_s in steps_s)]
        # the median: what else happens on the machine is not the page's doing
        self.interval_s = min(LONGEST_S, max(SHORTEST_S, statistics.median(self._costs_s) / MAX_SHARE))
