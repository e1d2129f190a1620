"""Given answers, weighed: the probability of each choice, and whole answers ranked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_magic.errors import OptionError
from llm_magic.faces import Shown
from llm_magic.frames import import_pandas

if TYPE_CHECKING:
    import pandas

    from llm_magic.generation import Score


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the given answers: its tokens behind the prompt, and what the model thinks of it.

    `free_probability` is the model's own probability of these tokens, among all texts; where other choices begin with
    this one, without theirs. `probability` is that among the choices.
    """

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    free_probability: float
    probability: float


@dataclass(frozen=True)
class Choices(Shown):
    """What the model thinks of some given answers to a prompt (`text`), in the order in which they were given."""

    text: str
    choices: tuple[Choice, ...]
    model: str

    @property
    def best(self) -> Choice:
        """The most likely choice; the first of several."""
        return max(self.choices, key=lambda choice: choice.probability)

    @property
    def label(self) -> str:
        return self.best.text

    value = label

    @property
    def probability(self) -> float:
        """That of the label, among the choices."""
        return self.best.probability

    @property
    def free_probability(self) -> float:
        """That of all choices together, among all texts: little where the model wanted to say something else."""
        return min(1.0, sum(choice.free_probability for choice in self.choices))

    @property
    def ranked(self) -> tuple[Choice, ...]:
        """The choices, the most likely first."""
        return tuple(sorted(self.choices, key=lambda choice: -choice.probability))

    def __str__(self) -> str:
        return self.label

    def to_pandas(self) -> pandas.DataFrame:
        """A frame with one row for each choice."""
        rows = [
            {
                "choice": choice.text,
                "probability": choice.probability,
                "free_probability": choice.free_probability,
                "tokens": len(choice.ids),
            }
            for choice in self.choices
        ]
        return import_pandas().DataFrame(rows)


def check_choices(choices: Sequence[str]) -> tuple[str, ...]:
    """The choices, if they can be weighed: texts, none empty, none twice.

    >>> check_choices(["yes", ""])
    Traceback (most recent call last):
    llm_magic.errors.OptionError: choice 2 is '': give texts of at least one character, as choices=["yes", "no"]
    """
    if isinstance(choices, str):
        raise OptionError(f"the choices are the one text {choices!r:.60}", 'give a list, as ["yes", "no"]')
    try:
        texts = tuple(choices)
    except TypeError:
        raise OptionError(f"the choices are {choices!r:.60}", 'give a list, as ["yes", "no"]') from None
    fix = 'give texts of at least one character, as choices=["yes", "no"]'
    if not texts:
        raise OptionError("there are no choices", fix)
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str) or not text.strip():
            raise OptionError(f"choice {number} is {text!r}", fix)
        if (first := texts.index(text) + 1) < number:
            raise OptionError(f"choice {number} is {text!r}, as is choice {first}", "give each once")
    return texts


def weigh(
    text: str,
    choices: Sequence[str],
    ids: Sequence[Sequence[int]],
    logprobs: Sequence[Sequence[float]],
    model: str,
) -> Choices:
    """Probabilities of choices from the logprobs of their tokens behind a prompt.

    The probability of a choice is that of its tokens in a row, the first behind the prompt. A choice whose tokens begin
    another's is what is left of it without that: so choices exclude each other, and none counts twice.

    >>> both = weigh("", ["a", "ab"], [[1], [1, 2]], [[math.log(0.5)], [math.log(0.5), math.log(0.2)]], "")
    >>> [round(choice.free_probability, 3) for choice in both.choices]
    [0.4, 0.1]
    """
    totals = [math.fsum(of_choice) for of_choice in logprobs]
    alone = [
        total + math.log1p(-min(1 - 1e-12, _share_of_longer(index, ids, totals))) for index, total in enumerate(totals)
    ]
    highest = max(alone)
    weights = [math.exp(logprob - highest) for logprob in alone]
    found = [
        Choice(choice, tuple(own_ids), tuple(own), math.exp(logprob), weight / math.fsum(weights))
        for choice, own_ids, own, logprob, weight in zip(choices, ids, logprobs, alone, weights, strict=True)
    ]
    return Choices(text, tuple(found), model)


def _share_of_longer(index: int, ids: Sequence[Sequence[int]], totals: Sequence[float]) -> float:
    """Of a choice's probability, what belongs to choices that its tokens begin; of these, the shortest ones."""
    own, n = tuple(ids[index]), len(ids[index])
    longer = [i for i, other in enumerate(ids) if len(other) > n and tuple(other[:n]) == own]
    shortest = [i for i in longer if not any(j != i and tuple(ids[i][: len(ids[j])]) == tuple(ids[j]) for j in longer)]
    return math.fsum(math.exp(totals[i] - totals[index]) for i in shortest)


@dataclass(frozen=True)
class Ranking(Shown):
    """Answers that were given to a question, the most likely first, each with the probability of its tokens."""

    question: str
    scores: tuple[Score, ...]

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(score.text for score in self.scores)

    @property
    def best(self) -> Score:
        return self.scores[0]

    def to_pandas(self) -> pandas.DataFrame:
        """A frame with one row for each answer, the best first."""
        rows = [
            {
                "answer": score.text,
                "total_logprob": score.total_logprob,
                "perplexity": score.perplexity,
                "tokens": len(score.tokens),
            }
            for score in self.scores
        ]
        return import_pandas().DataFrame(rows)
