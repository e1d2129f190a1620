"""GGUF's block formats as `Groups` of integers, or as dense tensors: bit by bit what gguf-py makes of them.

Layouts: ggml's ggml-common.h. All blocks hold 32 values and begin with a fp16 scale d.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llm_magic.engine.linear import Groups, Weight
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
    return Groups(_nibbles(blocks[..., 2:]).view(torch.int8) - 8, _halves(blocks[..., :2]), None, bits=4)


def _read_q4_1(blocks: Tensor) -> Groups:
    """d, m, 16 bytes of two codes each: weight = d * code + m"""
    return Groups(_nibbles(blocks[..., 4:]), _halves(blocks[..., :2]), _halves(blocks[..., 2:4]), bits=4)


def _read_q8_0(blocks: Tensor) -> Groups:
    """d, 32 signed bytes: weight = d * code"""
    codes = blocks[..., 2:].contiguous().view(torch.int8)
    return Groups(codes.flatten(1), _halves(blocks[..., :2]), None, bits=8)


_READERS = {"Q4_0": _read_q4_0, "Q4_1": _read_q4_1, "Q8_0": _read_q8_0}


def _halves(pairs: Tensor) -> Tensor:
    """(N, G, 2) bytes -> (N, G) fp16"""
    return pairs.contiguous().view(torch.float16)[..., 0]


def _nibbles(packed: Tensor) -> Tensor:
    """(N, G, 16) bytes -> (N, 32 G) codes: the low halves are a block's first 16 values."""
    return torch.cat([packed & 15, packed >> 4], dim=-1).flatten(1)
