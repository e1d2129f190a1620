"""The vocabulary's matrix at both ends of the decoder: ids to vectors, and vectors to logits.

A head is a quarter of a small model's bytes. `RefinedHead` reads it as int8, with one scale a row, and
then computes the best rows again from the exact weights: the probabilities that are shown are truer than
a bf16 product gives, at half its bytes.

Axis letters: V vocabulary, d width, M rows, n best of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_magic.engine.linear import Groups, Weight, has_packed_kernel, make_linear

BEST_ROWS = 128
EXACT_MIN_ROWS = 32  # from here on, expanding the matrix to fp32 costs less than int8 products of so many rows
_SLICE_ROWS = 8192


class Embedding:
    """The rows of the vocabulary's matrix, dense or grouped; grouped rows are expanded when looked up."""

    def __init__(self, weight: Weight):
        self.weight = weight

    def __call__(self, ids: Tensor) -> Tensor:
        """(...) -> (..., d) in fp32"""
        return _rows(self.weight, ids.reshape(-1)).view(*ids.shape, -1)


@dataclass(frozen=True, slots=True)
class Logits:
    """Logits of a whole vocabulary, with the best of each row at hand, most likely first."""

    all: Tensor  # (M, V) fp32
    best: Tensor  # (M, n)
    best_ids: Tensor  # (M, n)


def with_best(logits: Tensor) -> Logits:
    """(M, V) with its best sought out."""
    return Logits(logits, *logits.topk(min(BEST_ROWS, logits.shape[-1])))


class RefinedHead:
    """Logits by an int8 product over all rows, the best ones then from the exact weights."""

    def __init__(self, weight: Weight):
        self.weight = weight
        codes, scales = [], []
        for start in range(0, weight.shape[0], _SLICE_ROWS):
            part = _dense_slice(weight, start)
            scale = part.abs().amax(1).clamp_min(1e-12) / 127
            codes.append((part / scale[:, None]).round_().to(torch.int8))
            scales.append(scale)
        self.codes, self.scale = torch.cat(codes), torch.cat(scales).bfloat16()
        self.n_bytes = self.codes.nbytes + self.scale.nbytes

    def __call__(self, hidden: Tensor) -> Logits:
        """(M, d) -> (M, V)"""
        if hidden.shape[0] >= EXACT_MIN_ROWS:
            return with_best(multiply_exactly(self.weight, hidden))
        logits = torch._weight_int8pack_mm(hidden.bfloat16(), self.codes, self.scale).float()
        ids = logits.topk(min(BEST_ROWS, logits.shape[1])).indices  # (M, n)
        rows = _rows(self.weight, ids.view(-1)).view(*ids.shape, -1)  # (M, n, d)
        exact = torch.bmm(rows, hidden[:, :, None])[:, :, 0]  # (M, n)
        best, order = exact.sort(descending=True)
        return Logits(logits.scatter_(1, ids, exact), best, ids.gather(1, order))


class PlainHead:
    """Logits by one product in the precision of the weights."""

    def __init__(self, weight: Weight, device: torch.device):
        self.linear = make_linear([weight], [None], device, keep_dense=False)
        self.n_bytes = self.linear.n_bytes

    def __call__(self, hidden: Tensor) -> Logits:
        """(M, d) -> (M, V)"""
        return with_best(self.linear(hidden).float())


def make_head(weight: Weight, device: torch.device) -> RefinedHead | PlainHead:
    """The head that is true and quick for a matrix of this kind, on this device."""
    is_fp32 = isinstance(weight, Tensor) and weight.dtype == torch.float32
    if has_packed_kernel(device) and not is_fp32 and weight.shape[1] % 32 == 0:
        return RefinedHead(weight)
    return PlainHead(weight, device)


def multiply_exactly(weight: Weight, x: Tensor) -> Tensor:
    """(V, d), (M, d) -> (M, V) in fp32, a grouped or bf16 matrix expanded a slice at a time."""
    parts = [F.linear(x, _dense_slice(weight, start)) for start in range(0, weight.shape[0], _SLICE_ROWS)]
    return torch.cat(parts, dim=-1)


def _dense_slice(weight: Weight, start: int) -> Tensor:
    end = start + _SLICE_ROWS
    return weight.slice_rows(start, end).to_dense() if isinstance(weight, Groups) else weight[start:end].float()


def _rows(weight: Weight, index: Tensor) -> Tensor:
    """(n) -> (n, d) in fp32"""
    return weight.rows(index).to_dense() if isinstance(weight, Groups) else F.embedding(index, weight).float()
