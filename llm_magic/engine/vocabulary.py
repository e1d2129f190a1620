"""The vocabulary's matrix at both ends of the decoder: ids to vectors, and vectors to logits.

Axis letters: V vocabulary, d width, M rows, n best of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llm_magic.engine.linear import Linear, Part
from llm_magic.engine.native.machine import Machine
from llm_magic.engine.native.matrix import count_tail, summarise
from llm_magic.generation import TAIL_BINS, TAIL_SPAN

BEST_ROWS = 64
SEARCH_BLOCK = 64


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
    kernels: Machine | None

    def summarise(self, ids: Tensor) -> Tensor:
        """Of each row: the highest logit h, the sum of exp(l - h), that of exp(l - h) (l - h), and how many logits
        are above that of the row's id in `ids` (M,): (M, 4)"""
        if self.kernels is not None:
            return summarise(self.kernels, self.all, ids)
        below = self.all - self.best[:, :1]
        weights = below.exp()
        n_above = (self.all > self.all.gather(-1, ids[:, None])).sum(-1)
        sums = weights.sum(-1), torch.linalg.vecdot(weights, below)
        return torch.stack([self.best[:, 0], *sums, n_above.float()], dim=-1)


def count_tails(logits: Tensor, highest: Tensor, kernels: Machine | None) -> Tensor:
    """Histograms of logits (M, V) below `highest` (M,): of each bin how many, and the sum of their distances from it,
    (M, TAIL_BINS, 2). `Tail` has the bins' edges. Minus infinity is not counted.

    >>> count_tails(torch.tensor([[0.0, -36.0, -100.0, -torch.inf]]), torch.tensor([0.0]), None)[0, [0, 30, 31]]
    tensor([[  1.,   0.],
            [  0.,   0.],
            [  2., 136.]])
    """
    if kernels is not None:
        return count_tail(kernels, logits, highest)
    gaps = highest[:, None] - logits
    is_counted = gaps.isfinite()
    gaps = gaps.where(is_counted, 0.0).clamp(min=0)
    bins = (gaps * (TAIL_BINS**2 / TAIL_SPAN)).sqrt().clamp(max=TAIL_BINS - 1).long()
    counts = torch.stack([is_counted.float(), gaps], dim=-1)
    found = torch.zeros(len(logits), TAIL_BINS, 2, device=logits.device)
    return found.scatter_add_(1, bins[..., None].expand(-1, -1, 2), counts)


class Head:
    """The last product: the state behind a token to the logits of what could follow it."""

    def __init__(self, linear: Linear):
        self.linear = linear

    def __call__(self, hidden: Tensor) -> Logits:
        """(M, d) -> (M, V)"""
        logits = self.linear(hidden)
        return Logits(logits, *find_best(logits, min(BEST_ROWS, logits.shape[-1])), self.linear.kernels)


def find_best(logits: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n best of each row (M, V) and their ids, best first: those of the n blocks whose own best are best.

    >>> find_best(torch.tensor([[1.0, 5.0, 3.0]]), 2)
    (tensor([[5., 3.]]), tensor([[1, 2]]))
    """
    m, v = logits.shape
    if v % SEARCH_BLOCK or n * SEARCH_BLOCK >= v // 2:
        best, ids = logits.topk(n)
        return best, ids
    blocks = logits.view(m, -1, SEARCH_BLOCK)
    chosen = blocks.amax(-1).topk(n).indices  # (M, n)
    candidates = blocks.gather(1, chosen[..., None].expand(-1, -1, SEARCH_BLOCK)).view(m, -1)
    best, index = candidates.topk(n)
    return best, chosen.gather(1, index // SEARCH_BLOCK) * SEARCH_BLOCK + index % SEARCH_BLOCK
