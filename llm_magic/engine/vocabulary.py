"""The vocabulary's matrix at both ends of the decoder: ids to vectors, and vectors to logits.

Axis letters: V vocabulary, d width, M rows, n best of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from llm_magic.engine.linear import Linear, Part

BEST_ROWS = 128


class Embedding:
    """The rows of the vocabulary's matrix, as the head holds them where the two are one."""

    def __init__(self, part: Part):
        self.part = part

    def __call__(self, ids: Tensor) -> Tensor:
        """(...) -> (..., d) in fp32"""
        return self.part.rows(ids.reshape(-1)).view(*ids.shape, -1)


@dataclass(frozen=True, slots=True)
class Logits:
    """Logits of a whole vocabulary, with the best of each row at hand, most likely first."""

    all: Tensor  # (M, V) fp32
    best: Tensor  # (M, n)
    best_ids: Tensor  # (M, n)


class Head:
    """The last product: the state behind a token to the logits of what could follow it."""

    def __init__(self, linear: Linear):
        self.linear = linear

    def __call__(self, hidden: Tensor) -> Logits:
        """(M, d) -> (M, V)"""
        logits = self.linear(hidden)
        return Logits(logits, *logits.topk(min(BEST_ROWS, logits.shape[-1])))
