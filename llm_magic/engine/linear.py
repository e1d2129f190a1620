"""Weight matrices as they lie in memory, and the products with them.

A weight comes as a dense tensor or as `Groups` of small integers. Grouped weights stay small:
on x86 processors their codes go into PyTorch's int4 kernel as they are (one of eight bits
as two of four), which reads half to a quarter of the bytes that a bf16 product would. The kernel
wins for a few rows; for many, a bf16 copy wins, kept where the model is small enough.

Axis letters: N output features, K input features, M rows, G groups of a row (K / group size).
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

PACKED_MAX_ROWS = 8  # up to here the int4 kernel is faster than a bf16 product (on two machines, 4 and 16)


@dataclass(frozen=True, slots=True)
class Groups:
    """A matrix as integer codes, with a scale and an offset for each group of inputs.

    weight[n, k] = codes[n, k] * scale[n, g] + offset[n, g], with g = k // group size.
    `codes`: (N, K), int8 (signed, of 4 or 8 bits), or uint8 (0 to 15). `scale`, `offset`: (N, G) fp32.
    """

    codes: Tensor
    scale: Tensor
    offset: Tensor | None
    bits: int

    @property
    def shape(self) -> torch.Size:
        return self.codes.shape

    @property
    def group_size(self) -> int:
        return self.codes.shape[-1] // self.scale.shape[-1]

    def to_dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(N, K), computed in fp32."""
        n, k = self.codes.shape
        weight = self.codes.view(n, -1, self.group_size) * self.scale[..., None]
        if self.offset is not None:
            weight += self.offset[..., None]
        return weight.view(n, k).to(dtype)

    def rows(self, index: Tensor) -> Groups:
        """The rows of `index`, in its order."""
        return Groups(
            self.codes[index], self.scale[index], None if self.offset is None else self.offset[index], self.bits
        )

    def slice_rows(self, start: int, end: int) -> Groups:
        """Rows `start` to `end`, without a copy."""
        offset = None if self.offset is None else self.offset[start:end]
        return Groups(self.codes[start:end], self.scale[start:end], offset, self.bits)

    def to(self, device: torch.device) -> Groups:
        """The same on another device."""
        offset = None if self.offset is None else self.offset.to(device)
        return Groups(self.codes.to(device), self.scale.to(device), offset, self.bits)

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.scale.nbytes + (0 if self.offset is None else self.offset.nbytes)


Weight = Tensor | Groups


class Linear(Protocol):
    """y = x @ weight.T + bias, in the weight's own precision, `dtype`."""

    shape: tuple[int, int]  # (N, K)
    dtype: torch.dtype
    n_bytes: int

    def __call__(self, x: Tensor) -> Tensor:
        """(M, K) of any type -> (M, N)"""
        ...


class Dense:
    """A matrix of floats; inputs are cast to its type."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        self.weight, self.bias, self.dtype = weight, None if bias is None else bias.to(weight.dtype), weight.dtype
        self.shape = tuple(weight.shape)
        self.n_bytes = weight.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class Packed:
    """A matrix of 4-bit codes in the layout of PyTorch's int4 kernel; bf16 in and out.

    The kernel computes (code - 8) * scale + zero, so zero = offset + 8 * scale. Eight bits are
    two products of four over the same inputs: code = 16 * high + low.
    """

    dtype = torch.bfloat16

    def __init__(self, groups: Groups, bias: Tensor | None, dense: Tensor | None):
        self.shape = tuple(groups.shape)
        self.group_size = groups.group_size
        self.bias = None if bias is None else bias.bfloat16()
        self.dense = dense  # (N, K) bf16, for many rows; None where memory is short
        self.n_products = 2 if groups.bits == 8 else 1
        codes, scale = groups.codes.int(), groups.scale
        offset = torch.zeros_like(scale) if groups.offset is None else groups.offset
        if groups.bits == 8:  # high is -8..7, low is 0..15; the kernel wants 0..15 of both
            high = codes >> 4
            codes = torch.cat([high + 8, codes - 16 * high], dim=1)
            zero = torch.cat([offset, 8 * scale], dim=1)
            scale = torch.cat([16 * scale, scale], dim=1)
        elif groups.codes.dtype == torch.int8:
            codes, zero = codes + 8, offset
        else:
            zero = offset + 8 * scale
        self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.contiguous(), 1)
        self.scale_zero = torch.stack([scale, zero], dim=-1).transpose(0, 1).contiguous().bfloat16()  # (G, N, 2)
        self.n_bytes = self.packed.nbytes + self.scale_zero.nbytes + (0 if dense is None else dense.nbytes)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.bfloat16()
        if self.dense is not None and x.shape[0] > PACKED_MAX_ROWS:
            return F.linear(x, self.dense, self.bias)
        if self.n_products == 2:
            x = torch.cat([x, x], dim=1)
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self.packed, self.group_size, self.scale_zero)
        return y if self.bias is None else y + self.bias


class Stacked:
    """Several matrices over the same input, their outputs joined: for parts of unlike formats."""

    def __init__(self, parts: list[Linear]):
        self.parts, self.dtype = parts, torch.float32
        self.shape = (sum(part.shape[0] for part in parts), parts[0].shape[1])
        self.n_bytes = sum(part.n_bytes for part in parts)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([part(x).float() for part in self.parts], dim=-1)


def has_packed_kernel(device: torch.device) -> bool:
    """Whether grouped weights are computed on as they are; elsewhere they become bf16 or fp32."""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return device.type == "cpu" and is_x86 and hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu")


def dense_dtype(device: torch.device) -> torch.dtype:
    """The precision of products with dense copies: bf16 where the hardware has it, else fp32."""
    if device.type != "cpu":
        return torch.bfloat16
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def make_linear(weights: list[Weight], biases: list[Tensor | None], device: torch.device, keep_dense: bool) -> Linear:
    """One linear layer of the matrices in `weights`, (N_i, K) each, their outputs joined."""
    if all(isinstance(weight, Tensor) for weight in weights):
        bias = torch.cat(biases).to(device) if biases[0] is not None else None
        joined = torch.cat(weights) if len(weights) > 1 else weights[0]
        return Dense(joined.to(device), bias)
    kinds = {
        (type(w), getattr(w, "bits", 0), getattr(w, "group_size", 0), getattr(w, "offset", 0) is None) for w in weights
    }
    if len(kinds) > 1:
        return Stacked([make_linear([w], [b], device, keep_dense) for w, b in zip(weights, biases, strict=True)])
    groups = join_groups(weights)
    bias = torch.cat(biases).to(device) if biases[0] is not None else None
    if not (has_packed_kernel(device) and _is_packable(groups)):
        return Dense(groups.to_dense(dense_dtype(device)).to(device), bias)
    dense = groups.to_dense(torch.bfloat16) if keep_dense and dense_dtype(device) == torch.bfloat16 else None
    return Packed(groups, bias, dense)


def _is_packable(groups: Groups) -> bool:
    """Whether the int4 kernel takes a matrix of this shape."""
    return groups.shape[0] % 16 == 0 and groups.group_size in (32, 64, 128, 256)


def join_groups(parts: list[Groups]) -> Groups:
    """The rows of all parts, which share their format, one below the other."""
    if len(parts) == 1:
        return parts[0]
    offset = None if parts[0].offset is None else torch.cat([part.offset for part in parts])
    return Groups(
        torch.cat([part.codes for part in parts]), torch.cat([part.scale for part in parts]), offset, parts[0].bits
    )
