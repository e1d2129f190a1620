"""Conversations as turns: what a prompt goes on from, and which earlier turn it takes the place of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_magic.generation import Message


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer. `cell` asked it, where cells are known, in the `run`-th run of this session."""

    question: Message
    answer: Message
    system: Message | None = None
    cell: str | None = None
    run: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new turn goes: behind those before, in front of those after; `n_replaced` are gone for it."""

    before: tuple[Turn, ...] = ()
    after: tuple[Turn, ...] = ()
    n_replaced: int = 0
    system: Message | None = None  # of turns that were dropped

    @property
    def messages(self) -> tuple[Message, ...]:
        """What the new turn goes on from, as messages."""
        turns = (message for turn in self.before for message in (turn.question, turn.answer))
        return (*self._systems[-1:], *turns)

    @property
    def _systems(self) -> list[Message]:
        return [message for message in (self.system, *(turn.system for turn in self.before)) if message is not None]

    def without_oldest(self, n: int) -> Place:
        """The same without the first `n` turns; what the system text was stays."""
        return Place(self.before[n:], self.after, self.n_replaced, next(reversed(self._systems), None))

    def fill(self, messages: Sequence[Message], cell: str | None, run: int) -> tuple[Turn, ...]:
        """All turns, with the new one: the last two messages of its conversation."""
        system = next((message for message in messages if message.role == "system"), None)
        return (*self.before, Turn(*messages[-2:], system, cell, run), *self.after)


def find_place(turns: Sequence[Turn], cell: str | None, run: int) -> Place:
    """Where a prompt of a cell goes: in the place of the turns that the cell asked when it last ran; else at the end.

    >>> hello, answer = Message("user", "hello"), Message("assistant", "hi")
    >>> turns = [Turn(hello, answer, cell="a", run=1), Turn(hello, answer, cell="b", run=2)]
    >>> place = find_place(turns, "a", 3)
    >>> len(place.before), len(place.after), place.n_replaced
    (0, 1, 1)
    """
    known = cell is not None
    stale = [index for index, turn in enumerate(turns) if known and turn.cell == cell and turn.run != run]
    own = [index for index, turn in enumerate(turns) if known and turn.cell == cell and turn.run == run]
    at = own[-1] + 1 if own else stale[0] if stale else len(turns)  # a loop's turns stand one behind the other
    before = tuple(turn for index, turn in enumerate(turns[:at]) if index not in stale)
    after = tuple(turn for index, turn in enumerate(turns) if index >= at and index not in stale)
    return Place(before, after, len(stale))
