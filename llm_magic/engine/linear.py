"""Weight matrices, and the products with them.

A weight comes as a dense tensor or as `Groups` of small integers. On a CPU grouped weights stay as small as the
file has them, and kernels made for the processor compute on them (`engine/native`); elsewhere they become dense.

Axis letters: N output features, K input features, M rows, G groups of a row (K / group size).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_magic.engine.native.machine import Machine, machine
from llm_magic.engine.native.matrix import Factors, PackedMatrix, multiply, pack


@dataclass(frozen=True, slots=True)
class Groups:
    """A matrix as integer codes, with a scale and an offset for each group of inputs.

    weight[n, k] = codes[n, k] * scale[n, g] + offset[n, g], with g = k // group size.
    `codes`: (N, K), int8 (signed, of 4 or 8 bits), or uint8 (0 to 15).
    """

    codes: Tensor
    scale: Factors
    offset: Factors | None
    bits: int

    @property
    def shape(self) -> torch.Size:
        return self.codes.shape

    @property
    def group_size(self) -> int:
        return self.codes.shape[-1] // self.scale.values.shape[-1]

    def to_dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(N, K), computed in fp32."""
        n, k = self.codes.shape
        weight = self.codes.view(n, -1, self.group_size) * self.scale.to_float()[..., None]
        if self.offset is not None:
            weight += self.offset.to_float()[..., None]
        return weight.view(n, k).to(dtype)

    def map(self, change: Callable[[Tensor], Tensor]) -> Groups:
        """The same change to codes, scales and offsets."""
        offset = None if self.offset is None else self.offset.map(change)
        return Groups(change(self.codes), self.scale.map(change), offset, self.bits)

    def rows(self, index: Tensor) -> Groups:
        """The rows of `index`, in its order."""
        return self.map(lambda x: x[index])

    def to(self, device: torch.device) -> Groups:
        """The same on another device."""
        return self.map(lambda x: x.to(device))

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.scale.nbytes + (0 if self.offset is None else self.offset.nbytes)


Weight = Tensor | Groups


class Part:
    """One matrix of a linear layer, with its bias (N) in fp32."""

    def __init__(self, matrix: Tensor | PackedMatrix, bias: Tensor | None):
        self.matrix = matrix
        self.bias = None if bias is None else bias.float()

    @property
    def shape(self) -> torch.Size:
        return self.matrix.shape

    def __call__(self, x: Tensor, kernels: Machine | None) -> Tensor:
        """(M, K) in fp32 -> (M, N) in fp32"""
        if kernels is not None:
            return multiply(kernels, self.matrix, x, self.bias)
        y = F.linear(x.to(self.matrix.dtype), self.matrix).float()
        return y if self.bias is None else y + self.bias

    def to_dense(self, start: int = 0, end: int | None = None) -> Tensor:
        """Rows `start` to `end` of the matrix, in fp32."""
        return self.rows(torch.arange(self.shape[0], device=self.device)[start:end])

    def rows(self, index: Tensor) -> Tensor:
        """(n) -> (n, K) in fp32"""
        return F.embedding(index, self.matrix).float() if isinstance(self.matrix, Tensor) else self.matrix.rows(index)

    @property
    def device(self) -> torch.device:
        return self.matrix.device if isinstance(self.matrix, Tensor) else self.matrix.codes.device

    @property
    def n_bytes(self) -> int:
        return self.matrix.nbytes


class Linear:
    """y = x @ weight.T + bias, for several matrices over the same input: their outputs joined.

    `kernels`: what computes on the matrices, None for PyTorch's own products.
    """

    def __init__(self, parts: list[Part], kernels: Machine | None):
        self.parts, self.kernels = parts, kernels
        self.shape = (sum(part.shape[0] for part in parts), parts[0].shape[1])

    def __call__(self, x: Tensor) -> Tensor:
        """(M, K) -> (M, N) in fp32"""
        outputs = [part(x, self.kernels) for part in self.parts]
        return torch.cat(outputs, dim=-1) if len(outputs) > 1 else outputs[0]

    @property
    def n_bytes(self) -> int:
        return sum(part.n_bytes for part in self.parts)


def native_kernels(device: torch.device) -> Machine | None:
    """The kernels for this processor, where the model lies in its memory and code can be made for it."""
    return machine() if device.type == "cpu" else None


def dense_dtype(device: torch.device) -> torch.dtype:
    """The precision of products with dense matrices: bf16 where the hardware has it, else fp32."""
    if device.type != "cpu":
        return torch.bfloat16
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def make_linear(weights: list[Weight], biases: list[Tensor | None], device: torch.device) -> Linear:
    """One linear layer of the matrices in `weights`, (N_i, K) each, their outputs joined."""
    kernels = native_kernels(device)
    biases = [None if bias is None else bias.to(device) for bias in biases]
    if kernels is None and all(isinstance(weight, Tensor) for weight in weights):  # one product instead of several
        bias = torch.cat(biases) if biases[0] is not None else None
        return Linear([Part(torch.cat(weights).to(device), bias)], None)
    return Linear([make_part(w, b, device) for w, b in zip(weights, biases, strict=True)], kernels)


def make_part(weight: Weight, bias: Tensor | None, device: torch.device) -> Part:
    """A matrix in the form that is computed on, on this device."""
    if isinstance(weight, Groups):
        if native_kernels(device) is not None and weight.group_size in (16, 32) and weight.shape[1] % 32 == 0:
            return Part(pack(weight.codes, weight.scale, weight.offset, weight.bits), bias)
        weight = weight.to_dense(dense_dtype(device))
    return Part(weight.to(device).contiguous(), bias)
