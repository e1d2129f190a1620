"""GGUF's block formats as `Groups` of integers, or as dense tensors: bit by bit what gguf-py makes of them.

Layouts: ggml's ggml-common.h. Blocks hold 32 values and begin with a fp16 scale d; those of the K formats hold 256,
in groups of 16 or 32 with whole-number scales of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llm_magic.engine.linear import Groups, Weight
from llm_magic.engine.native.matrix import Factors
from llm_magic.errors import ModelFileError
from llm_magic.weights.gguf import GGUFFile, TensorEntry

DENSE_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_tensor(file: GGUFFile, entry: TensorEntry) -> Weight:
    """A tensor of the file, dense where it is stored so (a view of the mapped file), else grouped."""
    raw = torch.frombuffer(file.bytes_of(entry), dtype=torch.uint8)
    if entry.type.name in DENSE_TYPES:
        return raw.view(DENSE_TYPES[entry.type.name]).view(entry.shape)
    if entry.type.name not in _READERS or len(entry.shape) != 2:
        supported = ", ".join((*DENSE_TYPES, *_READERS))
        raise ModelFileError(
            f"{file.path} has tensor {entry.name!r} in the format {entry.type.name}, which is not read yet",
            f"use a file in one of {supported}",
        )
    blocks = raw.view(entry.shape[0], -1, entry.type.block_bytes)  # (N, G, block bytes)
    return _READERS[entry.type.name](blocks)


def _read_q4_0(blocks: Tensor) -> Groups:
    """d, 16 bytes of two codes each: weight = d * (code - 8)"""
    return Groups(_nibbles(blocks[..., 2:]).view(torch.int8) - 8, _factors(blocks, 0), None, bits=4)


def _read_q4_1(blocks: Tensor) -> Groups:
    """d, m, 16 bytes of two codes each: weight = d * code + m"""
    return Groups(_nibbles(blocks[..., 4:]), _factors(blocks, 0), _factors(blocks, 2), bits=4)


def _read_q8_0(blocks: Tensor) -> Groups:
    """d, 32 signed bytes: weight = d * code"""
    codes = blocks[..., 2:].contiguous().view(torch.int8)
    return Groups(codes.flatten(1), _factors(blocks, 0), None, bits=8)


def _read_q5_0(blocks: Tensor) -> Groups:
    """d, 4 bytes of fifth bits, 16 bytes of two codes each: weight = d * (code - 16)"""
    codes = _fifth_bits(blocks[..., 2:6]) << 4 | _nibbles(blocks[..., 6:])
    return Groups(codes.view(torch.int8) - 16, _factors(blocks, 0), None, bits=8)


def _read_q5_1(blocks: Tensor) -> Groups:
    """d, m, 4 bytes of fifth bits, 16 bytes of two codes each: weight = d * code + m"""
    codes = _fifth_bits(blocks[..., 4:8]) << 4 | _nibbles(blocks[..., 8:])
    return Groups(codes.view(torch.int8), _factors(blocks, 0), _factors(blocks, 2), bits=8)


def _read_q2_k(blocks: Tensor) -> Groups:
    """16 bytes of scale and minimum, 64 bytes of four codes each, d, dmin; groups of 16"""
    scales, codes = blocks[..., :16], _unpack(blocks[..., 16:80], 2, 32)
    scale, offset = _whole(scales & 15, _half(blocks, 80)), _whole(scales >> 4, -_half(blocks, 82))
    return Groups(codes, scale, offset, bits=4)


def _read_q3_k(blocks: Tensor) -> Groups:
    """32 bytes of third bits, 64 bytes of four codes each, 12 bytes of scales, d; groups of 16"""
    high, low, scales = blocks[..., :32], blocks[..., 32:96], blocks[..., 96:108]
    codes = (_unpack(low, 2, 32) | _unpack(high, 1, 32) << 2).view(torch.int8) - 4
    scales = _unpack(scales[..., :8], 4, 8).view(*scales.shape[:-1], 16) | (
        _unpack(scales[..., 8:], 2, 4).view(*scales.shape[:-1], 16) << 4
    )
    return Groups(codes, _whole(scales - 32, _half(blocks, 108)), None, bits=4)


def _read_q4_k(blocks: Tensor) -> Groups:
    """d, dmin, 12 bytes of scales and minima, 128 bytes of two codes each; groups of 32"""
    return Groups(_unpack(blocks[..., 16:], 4, 32), *_scales_and_minima(blocks), bits=4)


def _read_q5_k(blocks: Tensor) -> Groups:
    """d, dmin, 12 bytes of scales and minima, 32 bytes of fifth bits, 128 bytes of two codes each; groups of 32"""
    codes = _unpack(blocks[..., 48:], 4, 32) | _unpack(blocks[..., 16:48], 1, 32) << 4
    return Groups(codes.view(torch.int8), *_scales_and_minima(blocks), bits=8)


def _read_q6_k(blocks: Tensor) -> Groups:
    """128 bytes of low halves, 64 bytes of two high bits each, 16 signed scales, d; groups of 16"""
    codes = _unpack(blocks[..., :128], 4, 64) | _unpack(blocks[..., 128:192], 2, 32) << 4
    return Groups(codes.view(torch.int8) - 32, _whole(blocks[..., 192:208], _half(blocks, 208)), None, bits=8)


_READERS = {
    "Q4_0": _read_q4_0, "Q4_1": _read_q4_1, "Q5_0": _read_q5_0, "Q5_1": _read_q5_1, "Q8_0": _read_q8_0,
    "Q2_K": _read_q2_k, "Q3_K": _read_q3_k, "Q4_K": _read_q4_k, "Q5_K": _read_q5_k, "Q6_K": _read_q6_k,
}  # fmt: skip


def _half(blocks: Tensor, start: int) -> Tensor:
    """The fp16 number at a byte of each block: (N, B)"""
    return blocks[..., start : start + 2].contiguous().view(torch.float16)[..., 0]


def _factors(blocks: Tensor, start: int) -> Factors:
    """A fp16 number of each block, which is a group."""
    return Factors(_half(blocks, start))


def _whole(values: Tensor, blocks: Tensor) -> Factors:
    """Whole numbers of each block's groups (N, B, G'), bytes that hold signed ones, and the blocks' factors (N, B)"""
    return Factors(values.contiguous().view(torch.int8).flatten(1), blocks)


def _nibbles(packed: Tensor) -> Tensor:
    """(N, G, 16) bytes -> (N, 32 G) codes: the low halves are a block's first 16 values."""
    return torch.cat([packed & 15, packed >> 4], dim=-1).flatten(1)


def _fifth_bits(packed: Tensor) -> Tensor:
    """(N, G, 4) bytes -> (N, 32 G), one bit each"""
    return (packed[..., None] >> torch.arange(8, dtype=torch.uint8) & 1).flatten(1)


def _unpack(packed: Tensor, bits: int, run: int) -> Tensor:
    """(N, B, bytes) -> (N, K): for each `run` bytes their lowest `bits`, then their next ones, and so on."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
    return (packed.unflatten(-1, (-1, 1, run)) >> shifts[:, None] & (1 << bits) - 1).flatten(1)


def _scales_and_minima(blocks: Tensor) -> tuple[Factors, Factors]:
    """d, dmin and 12 bytes of 6-bit numbers, 8 scales and 8 minima -> scale and offset"""
    first, second, rest = (blocks[..., start : start + 4] for start in (4, 8, 12))
    scales = torch.cat([first & 63, rest & 15 | first >> 2 & 48], dim=-1)
    minima = torch.cat([second & 63, rest >> 4 | second >> 2 & 48], dim=-1)
    return _whole(scales, _half(blocks, 0)), _whole(minima, -_half(blocks, 2))
