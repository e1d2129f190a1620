"""New tokens through all layers in one call of machine code: the decoder's arithmetic as a program of kernels.

What it computes is `Decoder.forward`; the tests hold the two together. A token's result does not depend on what
is computed beside it: the same bits alone, in a prompt, or in a batch.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from llm_magic.engine.cache import KVCache
from llm_magic.engine.linear import Linear
from llm_magic.engine.model import Decoder, Layer
from llm_magic.engine.native import attention, calls
from llm_magic.engine.native.calls import round_up
from llm_magic.engine.native.machine import Machine
from llm_magic.engine.native.matrix import Prepared, Program, product_instruction, rows_at_once

QUERY_ROWS = 8  # new tokens of one sequence whose attention goes together: they share the loads of keys and values
LONG_TOKENS = 256  # from here on, threads share the keys that a lone token attends to
MAX_ROOMS = 3  # kept for later calls


@dataclass(frozen=True, slots=True)
class Shape:
    """What a program is written for."""

    rows: int
    is_sequence: bool = False  # new tokens of one sequence, else one of each row
    is_long: bool = False
    is_cache_half: bool = False


@dataclass(frozen=True, slots=True)
class Buffers:
    """Where each buffer of a program starts, in bytes: all rows of one, then of the next."""

    x: int  # the residual stream, (M, d)
    qkv: int  # (M, (H + 2 K) D)
    mixed: int  # (M, H D)
    gate_up: int  # (M, 2 F)
    active: int  # (M, F)
    hidden: int  # (M, d)
    n_bytes: int


class Stepper:
    """Runs new tokens of one generation, or of a batch. Not to be shared between threads: it owns its buffers."""

    def __init__(self, model: Decoder, kernels: Machine):
        self.model, self.kernels = model, kernels
        self._rooms: dict[Shape, _Room] = {}

    def run(self, ids: Tensor, cache: KVCache) -> Tensor:
        """Hidden states behind the final norm, (B, T) -> (B, T, d), valid until the next call.

        One token for each row of the cache, or many for its only row. Writes keys and values behind the cache's
        committed tokens, and commits nothing.
        """
        b, t = ids.shape
        assert b == 1 or t == 1, "rows of a batch take one token each"
        n, model, longest = b * t, self.model, max(cache.lengths)
        at_once, is_half = rows_at_once(n), cache.data.dtype == torch.float16
        room = self._room(Shape(round_up(n, at_once), t > 1, n == 1 and self._is_long(longest), is_half))
        cache.reserve(longest + t)
        rotations = model.rotations(cache.capacity_tokens)
        starts = cache.lengths if t == 1 else range(longest, longest + t)
        room.set_tokens(model.embedding(ids.view(-1)), starts, cache.capacity_tokens)
        parameters, data = room.parameters, cache.data
        parameters[calls.ROTATIONS], parameters[calls.CACHE] = rotations.data_ptr(), data.data_ptr()
        layer_items, row_items, head_items = data.stride()[:3]
        item_bytes = data.element_size()
        parameters[calls.LAYER_BYTES], parameters[calls.HEAD_BYTES] = item_bytes * layer_items, item_bytes * head_items
        parameters[calls.ROW_BYTES] = item_bytes * row_items if t == 1 else 0
        parameters[calls.HEADS_AT_ONCE] = self._heads_at_once(n)
        parameters[calls.N_THREADS] = min(self.kernels.n_threads, room.prepared.n_threads)
        started = time.perf_counter()
        self.kernels.run(parameters)
        if t == 1:
            self.kernels.crew.record(id(room.program), time.perf_counter() - started)
        return room.hidden[:n].view(b, t, -1)

    def _room(self, shape: Shape) -> _Room:
        if shape not in self._rooms:
            if len(self._rooms) == MAX_ROOMS:  # a batch whose rows end, prompts of many lengths
                self._rooms.pop(next(iter(self._rooms)))
            self._rooms[shape] = _Room(self.model, self.kernels, shape)
        return self._rooms[shape]

    def _is_long(self, length: int) -> bool:
        """Whether threads share a lone token's keys: then each takes all heads of a key head."""
        return (
            length >= LONG_TOKENS and self.model.config.n_heads // self.model.config.n_kv_heads <= attention.MAX_QUERIES
        )

    def _heads_at_once(self, n_tokens: int) -> int:
        """How many query heads of a key head a thread takes together: all, unless threads would then stand idle."""
        c, n_threads = self.model.config, self.kernels.max_threads
        n_items, group = n_tokens * c.n_kv_heads, c.n_heads // c.n_kv_heads
        is_even = n_items % n_threads == 0 or n_items > 4 * n_threads
        return group if n_items >= n_threads and is_even and group <= attention.MAX_QUERIES else 1


class _Room:
    """Buffers for a shape, and the call that works in them."""

    def __init__(self, model: Decoder, kernels: Machine, shape: Shape):
        self.config, rows = model.config, shape.rows
        d = self.config.d_model
        self.program, buffers = program_for(model, kernels, shape)
        self.scratch = torch.zeros(buffers.n_bytes // 4)
        self.x = self.scratch[buffers.x // 4 :][: rows * d].view(rows, d)
        self.hidden = self.scratch[buffers.hidden // 4 :][: rows * d].view(rows, d)
        self.positions = torch.zeros(rows, dtype=torch.long)
        self.prepared = Prepared(kernels, max(linear.shape[1] for linear in _linears(model.layers[0])), rows)
        self.parameters = self.program.parameters(kernels, rows, self.prepared, self.scratch.data_ptr())
        self.parameters[calls.POSITIONS] = self.positions.data_ptr()
        self.is_long, self.partials = shape.is_long, torch.empty(0, dtype=torch.uint8)

    def set_tokens(self, embeddings: Tensor, positions: Iterable[int], capacity_tokens: int) -> None:
        """The input of the next call; the cache holds `capacity_tokens`."""
        n = len(embeddings)
        self.x[:n] = embeddings
        self.positions[:n] = torch.tensor(list(positions))
        self.parameters[calls.N_TOKENS] = n
        if self.is_long:
            n_chunks = -(-capacity_tokens // attention.CHUNK_KEYS)
            n_bytes = self.config.n_heads * n_chunks * attention.sum_bytes(self.config.head_dim)
            if len(self.partials) < n_bytes:
                self.partials = torch.empty(n_bytes, dtype=torch.uint8)
                self.parameters[calls.PARTIALS] = self.partials.data_ptr()


def _linears(layer: Layer) -> tuple[Linear, ...]:
    return layer.qkv, layer.o, layer.gate_up, layer.down


_programs: WeakKeyDictionary[Decoder, dict[Shape, tuple[Program, Buffers]]] = WeakKeyDictionary()


def program_for(model: Decoder, kernels: Machine, shape: Shape) -> tuple[Program, Buffers]:
    """The instructions of all layers for a shape; written once for each model."""
    known = _programs.setdefault(model, {})
    if shape not in known:
        known[shape] = _write_program(model, kernels, shape)
    return known[shape]


def _write_program(model: Decoder, kernels: Machine, shape: Shape) -> tuple[Program, Buffers]:
    c, starts, start = model.config, [], 0
    qkv, mixed = (c.n_heads + 2 * c.n_kv_heads) * c.head_dim, c.n_heads * c.head_dim
    for width in (c.d_model, qkv, mixed, 2 * c.d_ff, c.d_ff, c.d_model):
        starts.append(start)
        start += round_up(4 * shape.rows * width, calls.CACHE_LINE_BYTES)
    writer = _Writer(model, kernels, shape, Buffers(*starts, start))
    for index, layer in enumerate(model.layers):
        writer.add_layer(index, layer)
    writer.add_final_norm(model.norm)
    return writer.program, writer.buffers


class _Writer:
    """Writes a program, instruction by instruction."""

    def __init__(self, model: Decoder, kernels: Machine, shape: Shape, buffers: Buffers):
        self.config, self.kernels, self.shape, self.buffers = model.config, kernels, shape, buffers
        self.is_lone = shape.rows == 1
        self.program = Program()

    def add_layer(self, index: int, layer: Layer) -> None:
        c, at = self.config, self.buffers
        d, mixed, f = 4 * c.d_model, 4 * c.n_heads * c.head_dim, 4 * c.d_ff  # bytes of a row
        self._multiply(layer.qkv, at.x, d, at.qkv, 4 * layer.qkv.shape[0], layer.attention_norm)
        self._barrier()
        self._attend(index, layer)
        self._barrier()
        self._multiply(layer.o, at.mixed, mixed, at.x, d, is_added=True)
        self._barrier()
        self._multiply(layer.gate_up, at.x, d, at.gate_up, 2 * f, layer.mlp_norm)
        self.program.add([self.kernels.gate, at.gate_up, 2 * f, at.gate_up + f, c.d_ff, at.active, f])
        self._barrier()
        self._multiply(layer.down, at.active, f, at.x, d, is_added=True)
        self._barrier()

    def add_final_norm(self, norm: Tensor) -> None:
        d, at, epsilon = self.config.d_model, self.buffers, _float_bits(self.config.norm_eps)
        self.program.add([self.kernels.normalise, at.x, 4 * d, d, norm.data_ptr(), epsilon, at.hidden, 4 * d])

    def _attend(self, index: int, layer: Layer) -> None:
        c, at = self.config, self.buffers
        norms = [0 if norm is None else norm.data_ptr() for norm in (layer.q_norm, layer.k_norm)]
        group = c.n_heads // c.n_kv_heads
        rows_at_once = max(1, min(QUERY_ROWS, attention.MAX_QUERIES // group)) if self.shape.is_sequence else 1
        operands = [
            at.qkv, 4 * layer.qkv.shape[0], at.mixed, 4 * c.n_heads * c.head_dim, index, c.n_heads, c.n_kv_heads,
            *norms, _float_bits(c.norm_eps), rows_at_once,
        ]  # fmt: skip
        steps = ["attend"] if self.is_lone else ["rotate", "attend"]
        for index, step in enumerate(["rotate", "attend_chunks", "merge_chunks"] if self.shape.is_long else steps):
            if index:
                self._barrier()
            self.program.add([self.kernels.attend(step, c.head_dim, self.shape.is_cache_half), *operands])

    def _barrier(self) -> None:
        self.program.add([self.kernels.barrier])

    def _multiply(
        self, linear: Linear, source: int, source_stride: int, out: int, out_stride: int,
        norm: Tensor | None = None, is_added: bool = False,
    ) -> None:  # fmt: skip
        at_once = rows_at_once(self.shape.rows)
        has_floats = any(isinstance(part.matrix, Tensor) for part in linear.parts)
        norm_address, epsilon = 0 if norm is None else norm.data_ptr(), _float_bits(self.config.norm_eps)
        prepare = self.kernels.prepare(at_once, not self.is_lone, has_floats)
        self.program.add([prepare, source, source_stride, linear.shape[1], norm_address, epsilon])
        if not self.is_lone:
            self._barrier()
        for part in linear.parts:
            self.program.add(
                product_instruction(self.kernels, part.matrix, at_once, out, out_stride, part.bias, is_added)
            )
            out += 4 * part.shape[0]


def _float_bits(value: float) -> int:
    return struct.unpack("<I", struct.pack("<f", value))[0]
