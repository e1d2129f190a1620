"""A weight matrix as kernels read it."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_magic.engine.native import calls, summary, tail
from llm_magic.engine.native.calls import (
    CACHE_LINE_BYTES,
    INPUT_GROUP,
    INSTRUCTION_WORDS,
    TILE_ROWS,
    prepared_bytes,
    round_up,
)
from llm_magic.engine.native.machine import Machine
from llm_magic.engine.native.products import Product


@dataclass(frozen=True, slots=True)
class Factors:
    """A number for each group of a row: `values` (N, G), fp16 or fp32; or int8, to be multiplied by the fp16 number
    of its block in `blocks` (N, B)."""

    values: Tensor
    blocks: Tensor | None = None

    def to_float(self) -> Tensor:
        """(N, G) in fp32"""
        if self.blocks is None:
            return self.values.float()
        n_groups = self.values.shape[1] // self.blocks.shape[1]
        return self.values.float() * self.blocks.float().repeat_interleave(n_groups, dim=1)

    def map(self, change: Callable[[Tensor], Tensor]) -> Factors:
        """The same change to both."""
        return Factors(change(self.values), None if self.blocks is None else change(self.blocks))

    @property
    def kind(self) -> str:
        return {torch.float16: "fp16", torch.float32: "fp32", torch.int8: "int8"}[self.values.dtype]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + (0 if self.blocks is None else self.blocks.nbytes)


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """Codes of 4 or 8 bits, scales and offsets, in the layout of `products.py`; rows are padded to whole tiles."""

    n: int
    k: int
    bits: int
    group_size: int
    codes: Tensor  # (N / 32, K / 8 or K / 4, 2, 64) bytes
    scale: Factors  # (N / 32, G, 2, 16) and (N / 32, B, 2, 16)
    offset: Factors | None
    zero_point: int  # what is taken from each 4-bit code

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.n, self.k))

    def rows(self, index: Tensor) -> Tensor:
        """(n) -> (n, K): these rows in fp32, bit by bit what the file's format makes of them."""
        tile, half, row = index // TILE_ROWS, index % TILE_ROWS // 16, index % 16
        per_word, n = 16 // self.bits, len(index)
        if self.bits == 4:
            words = self.codes.view(*self.codes.shape[:3], 16, 2, 2)[tile, :, half, row]  # (n, S, e, byte)
            codes = torch.stack([words & 15, words >> 4], dim=-1).view(n, -1, 2, per_word)  # (n, S, e, j)
        else:
            codes = self.codes.view(torch.int8).view(*self.codes.shape[:3], 16, 2, 2)[tile, :, half, row]
        codes = codes.transpose(2, 3).reshape(n, -1, self.group_size).float()
        if self.zero_point:
            codes -= self.zero_point
        weight = codes.mul_(self.scale.map(lambda x: x[tile, :, half, row]).to_float()[..., None])
        if self.offset is not None:
            weight += self.offset.map(lambda x: x[tile, :, half, row]).to_float()[..., None]
        return weight.view(n, self.k)

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.scale.nbytes + (0 if self.offset is None else self.offset.nbytes)


def pack(codes: Tensor, scale: Factors, offset: Factors | None, bits: int) -> PackedMatrix:
    """Codes (N, K) with a scale and an offset for each group.

    4 bits: uint8 from 0 to 15, or int8 from -8 to 7. 8 bits: int8.
    """
    n, k = codes.shape
    assert bits == 8 or codes.dtype == torch.uint8 or offset is None, "signed 4-bit codes have no offset"
    zero_point = 8 if bits == 4 and codes.dtype == torch.int8 else 0
    codes = _pad_rows((codes + zero_point if zero_point else codes).view(torch.uint8))
    tiles = codes.shape[0] // TILE_ROWS
    per_word = 16 // bits
    # word 2 r + e holds inputs 2 (per_word s + j) + e of row r, j from its low end
    parts = codes.view(tiles, 2, 16, k // (2 * per_word), per_word, 2).permute(4, 0, 3, 1, 2, 5)  # (j, T, S, 2, 16, 2)
    if bits == 4:
        packed = torch.stack([parts[0] | parts[1] << 4, parts[2] | parts[3] << 4], dim=-1)
    else:
        packed = torch.stack([parts[0], parts[1]], dim=-1)
    packed = packed.reshape(tiles, -1, 2, 64)
    tiled = [None if x is None else x.map(_tile_groups) for x in (scale, offset)]
    return PackedMatrix(n, k, bits, k // scale.values.shape[1], aligned(packed), *tiled, zero_point)


def _pad_rows(x: Tensor) -> Tensor:
    missing = -x.shape[0] % TILE_ROWS
    return torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x


def _tile_groups(x: Tensor) -> Tensor:
    """(N, G) -> (N / 32, G, 2, 16)"""
    x = _pad_rows(x)
    return aligned(x.view(-1, 2, 16, x.shape[1]).permute(0, 3, 1, 2))


def aligned(x: Tensor) -> Tensor:
    """A contiguous copy that starts at a cache line."""
    flat = torch.empty(x.numel() + 64 // x.element_size(), dtype=x.dtype)
    start = (-flat.data_ptr() % 64) // x.element_size()
    return flat[start : start + x.numel()].view(x.shape).copy_(x)


def product_of(matrix: PackedMatrix | Tensor, rows: int) -> Product:
    """The kernel for a matrix and a number of activation rows."""
    if isinstance(matrix, Tensor):
        return Product(8 * matrix.element_size(), rows, kind=str(matrix.dtype).removeprefix("torch."))
    return Product(matrix.bits, rows, matrix.group_size, matrix.scale.kind, matrix.offset is not None)


def product_instruction(
    machine: Machine, matrix: PackedMatrix | Tensor, rows: int, out: int, out_stride: int, bias: Tensor | None = None,
    is_added: bool = False,
) -> list[int]:  # fmt: skip
    """y = matrix @ prepared x, at `out` bytes in the buffers; rows of y lie `out_stride` bytes apart."""
    address = machine.product(product_of(matrix, rows))
    bias_address = 0 if bias is None else bias.data_ptr()
    if isinstance(matrix, Tensor):
        (n, k), where, blocks, zero_point = matrix.shape, [matrix.data_ptr(), 0, 0], [0, 0], 0
    else:
        n, k, zero_point, factors = matrix.n, matrix.k, matrix.zero_point, (matrix.scale, matrix.offset)
        where = [matrix.codes.data_ptr(), *(0 if f is None else f.values.data_ptr() for f in factors)]
        blocks = [0 if f is None or f.blocks is None else f.blocks.data_ptr() for f in factors]
    return [address, out, out_stride, n, k, *where, bias_address, int(is_added), zero_point, *blocks]


def rows_at_once(rows: int) -> int:
    """How many rows a kernel takes at once; a call's rows are filled up to a multiple."""
    return 1 if rows == 1 else 4 if rows <= 4 else 8


def multiply(machine: Machine, matrix: PackedMatrix | Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ matrix.T + bias in fp32, for x (M, K) -> (M, N)"""
    m, k = x.shape
    n, at_once = matrix.shape[0] if isinstance(matrix, Tensor) else matrix.n, rows_at_once(m)
    x = x.float().contiguous()
    if missing := -m % at_once:
        x = torch.cat([x, x.new_zeros(missing, k)])
    y = torch.empty(len(x), n)
    program = Program()
    program.add([machine.prepare(at_once, m > 1, isinstance(matrix, Tensor)), x.data_ptr(), 4 * k, k, 0, 0])
    if m > 1:
        program.add([machine.barrier])
    program.add(product_instruction(machine, matrix, at_once, y.data_ptr(), 4 * n, bias))
    program.run(machine, len(x), Prepared(machine, k, len(x)))
    return y[:m]


def summarise(machine: Machine, logits: Tensor, ids: Tensor) -> Tensor:
    """Of each row of (M, V): its highest logit h, the sum of exp(l - h), that of exp(l - h) (l - h), and how many
    lie above the logit of its id in `ids` (M,): (M, 4)"""
    rows, n = logits.shape
    parts, results = torch.empty(rows, -(-n // summary.CHUNK), 4), torch.empty(rows, 4)
    ids = ids.contiguous()
    operands = [logits.data_ptr(), n, ids.data_ptr(), parts.data_ptr(), results.data_ptr()]
    _run_by_chunks(machine, machine.summarise, machine.merge_summaries, operands, rows)
    return results


def count_tail(machine: Machine, logits: Tensor, highest: Tensor) -> Tensor:
    """Of each row of (M, V): how many logits lie in each bin below its `highest` (M,), and the sum of their
    distances from it: (M, TAIL_BINS, 2). Minus infinity is not counted."""
    rows, n = logits.shape
    logits, highest = logits.contiguous(), highest.contiguous()
    parts = torch.empty(rows, -(-n // tail.CHUNK), tail.PART_BYTES, dtype=torch.uint8)
    results = torch.empty(rows, tail.ROW_BYTES // tail.PAIR_BYTES, 2)
    operands = [logits.data_ptr(), n, highest.data_ptr(), parts.data_ptr(), results.data_ptr()]
    _run_by_chunks(machine, machine.count_tail, machine.merge_tails, operands, rows)
    return results


def _run_by_chunks(machine: Machine, compute: int, merge: int, operands: list[int], rows: int) -> None:
    """All threads compute their chunks of each row; then these are merged."""
    program = Program()
    program.add([compute, *operands])
    program.add([machine.barrier])
    program.add([merge, *operands])
    program.run(machine, rows)


class Prepared:
    """Room for prepared activations of `rows` rows of up to K numbers: once, or for a lone row once a thread."""

    def __init__(self, machine: Machine, k: int, rows: int):
        n_bytes = round_up(prepared_bytes(round_up(k, INPUT_GROUP), rows), CACHE_LINE_BYTES)
        self.thread_bytes = n_bytes if rows == 1 else 0
        self.n_threads = machine.max_threads  # that there is room for
        self.data = torch.empty(n_bytes * (self.n_threads if rows == 1 else 1) + CACHE_LINE_BYTES, dtype=torch.uint8)
        self.address = round_up(self.data.data_ptr(), CACHE_LINE_BYTES)


class Program:
    """Instructions for a team of threads."""

    def __init__(self):
        self.words = array("q")

    def add(self, instruction: list[int]) -> None:
        self.words.extend(instruction + [0] * (INSTRUCTION_WORDS - len(instruction)))

    def parameters(self, machine: Machine, rows: int, prepared: Prepared | None = None, scratch: int = 0) -> array:
        """The words that a call for so many rows needs; those of the cache are left at 0."""
        words = array("q", [0] * calls.N_PARAMETERS)
        words[calls.PROGRAM] = self.words.buffer_info()[0]
        words[calls.N_INSTRUCTIONS] = len(self.words) // INSTRUCTION_WORDS
        n_threads = machine.n_threads
        words[calls.N_ROWS], words[calls.SCRATCH] = rows, scratch
        if prepared is not None:
            n_threads = min(n_threads, prepared.n_threads)  # it has room for no more
            words[calls.PREPARED], words[calls.PREPARED_BYTES] = prepared.address, prepared.thread_bytes
        words[calls.N_THREADS] = n_threads
        return words

    def run(self, machine: Machine, rows: int, prepared: Prepared | None = None) -> None:
        """Walk through them once."""
        machine.run(self.parameters(machine, rows, prepared))
