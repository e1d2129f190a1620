"""Kernels of attention: rotary embedding, the cache, and softmax over the keys.

Axis letters as in `engine/model.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from llm_magic.engine.native.calls import (
    CACHE,
    CACHE_LINE_BYTES,
    HEAD_BYTES,
    HEADS_AT_ONCE,
    LAYER_BYTES,
    N_TOKENS,
    PARTIALS,
    POSITIONS,
    ROTATIONS,
    ROW_BYTES,
    SCRATCH,
    Operands,
    float_word,
    round_up,
)  # fmt: skip
from llm_magic.engine.native.emit import F16, F32, I32, I64, LANES, Emitter, Variable, vector
from llm_magic.engine.native.layers import inverse_rms

# words of an instruction, behind the function's address
QKV, QKV_STRIDE, MIXED, MIXED_STRIDE, LAYER, HEADS, KV_HEADS, Q_NORM, K_NORM, HEAD_EPSILON, ROWS_AT_ONCE = range(1, 12)

KEYS_AT_ONCE = LANES
CHUNK_KEYS = 256  # after so many keys a softmax starts afresh
MAX_QUERIES = 64  # of one item: heads times rows


def emit_attend(module: ir.Module, name: str, head_dim: int, is_cache_half: bool) -> None:
    """Attention of one new token in each row, or of many new tokens of one sequence.

    A lone token's heads are rotated and cached here as well: threads whose heads share a key head all write its
    new key and value, the same bits to the same place, so none waits for another. Otherwise `rotate` went before.
    """
    e = Emitter(module, name, [I64] * 4)
    at, b = Operands(e), e.builder
    attention = _Attention(e, at, head_dim, is_cache_half)
    n_tokens, rows_at_once, heads_at_once = at.parameter(N_TOKENS), at.word(ROWS_AT_ONCE), at.parameter(HEADS_AT_ONCE)
    n_blocks = e.div(e.sub(e.add(n_tokens, rows_at_once), 1), rows_at_once)
    n_parts = e.div(attention.n_heads, heads_at_once)
    # neighbouring items go to different threads: the later a token, the more keys it sees
    with e.loop(at.thread, e.mul(n_blocks, n_parts), at.n_threads) as item:
        first_head = e.mul(b.urem(item, n_parts), heads_at_once)
        first_row = e.mul(e.div(item, n_parts), rows_at_once)
        kv_head = e.div(first_head, e.div(attention.n_heads, attention.n_kv_heads))
        with e.when(e.equal(n_tokens, 1)):
            attention.rotate_key(first_row, kv_head)
            attention.copy_value(first_row, kv_head)
            with e.loop(first_head, e.add(first_head, heads_at_once)) as head:
                attention.rotate_query(first_row, head)
        n_rows = e.min(rows_at_once, e.sub(n_tokens, first_row))
        queries = _Queries(attention, first_row, n_rows, first_head, heads_at_once)
        queries.load()
        with e.loop(0, queries.n_keys, CHUNK_KEYS) as first_key:
            queries.start_chunk()
            queries.read_keys(first_key, e.min(e.add(first_key, CHUNK_KEYS), queries.n_keys))
            with e.loop(0, queries.count) as query:
                queries.merge(queries.result(query), queries.chunk(query))
        with e.loop(0, queries.count) as query:
            attention.put(*queries.place(query), queries.result(query))
    e.finish()


def emit_attend_chunks(module: ir.Module, name: str, head_dim: int, is_cache_half: bool) -> None:
    """A lone token over many keys: threads share the chunks of keys, and leave what they found in PARTIALS."""
    e = Emitter(module, name, [I64] * 4)
    at, b = Operands(e), e.builder
    attention, row = _Attention(e, at, head_dim, is_cache_half), e.int(0)
    group = e.div(attention.n_heads, attention.n_kv_heads)
    n_keys = e.add(attention.position(row), 1)
    n_chunks = e.div(e.add(n_keys, CHUNK_KEYS - 1), CHUNK_KEYS)
    start, end = at.share(e.mul(n_chunks, attention.n_kv_heads))
    with e.loop(start, end) as item:
        kv_head, chunk = e.div(item, n_chunks), b.urem(item, n_chunks)
        queries = _Queries(attention, row, e.int(1), e.mul(kv_head, group), group)
        queries.load()
        queries.start_chunk()
        first_key = e.mul(chunk, CHUNK_KEYS)
        queries.read_keys(first_key, e.min(e.add(first_key, CHUNK_KEYS), n_keys))
        with e.loop(0, queries.count) as query:
            head = queries.place(query)[1]
            queries.copy(queries.chunk(query), attention.partial(head, chunk, n_chunks))
    e.finish()


def emit_merge_chunks(module: ir.Module, name: str, head_dim: int, is_cache_half: bool) -> None:
    """What all chunks of keys gave, for each head of a lone token: the same additions as in `attend`."""
    e = Emitter(module, name, [I64] * 4)
    at = Operands(e)
    attention, row = _Attention(e, at, head_dim, is_cache_half), e.int(0)
    n_chunks = e.div(e.add(attention.position(row), CHUNK_KEYS), CHUNK_KEYS)
    start, end = at.share(attention.n_heads)
    with e.loop(start, end) as head:
        queries = _Queries(attention, row, e.int(1), head, e.int(1))
        queries.clear(result := queries.result(e.int(0)))
        with e.loop(0, n_chunks) as chunk:
            queries.merge(result, attention.partial(head, chunk, n_chunks))
        attention.put(row, head, result)
    e.finish()


def emit_rotate(module: ir.Module, name: str, head_dim: int, is_cache_half: bool) -> None:
    """The new tokens' queries rotated where they are, their rotated keys and their values put into the cache."""
    e = Emitter(module, name, [I64] * 4)
    at, b = Operands(e), e.builder
    attention = _Attention(e, at, head_dim, is_cache_half)
    n_items = e.add(attention.n_heads, attention.n_kv_heads)
    start, end = at.share(e.mul(at.parameter(N_TOKENS), n_items))
    with e.loop(start, end) as item:
        row, head = e.div(item, n_items), b.urem(item, n_items)
        with b.if_else(b.icmp_unsigned("<", head, attention.n_heads)) as (is_query, is_key):
            with is_query:
                attention.rotate_query(row, head)
            with is_key:
                attention.rotate_key(row, e.sub(head, attention.n_heads))
                attention.copy_value(row, e.sub(head, attention.n_heads))
    e.finish()


class _Attention:
    """One layer's heads and its part of the cache."""

    def __init__(self, e: Emitter, at: Operands, head_dim: int, is_cache_half: bool):
        self.e, self.at, self.head_dim = e, at, head_dim
        self.cached_bytes, self.cached_type = (2, F16) if is_cache_half else (4, F32)
        self.width = next(w for w in (16, 8, 4, 2) if head_dim % w == 0)
        self.n_heads, self.n_kv_heads = at.word(HEADS), at.word(KV_HEADS)
        self.epsilon = float_word(e, at.word(HEAD_EPSILON))

    def position(self, row: ir.Value) -> ir.Value:
        return self.e.load(self.e.at(self.at.parameter(POSITIONS), row, 8), I64)

    def head(self, row: ir.Value, index: ir.Value) -> ir.Value:
        """A head of a row: queries first, then keys, then values."""
        e, at = self.e, self.at
        heads = e.add(e.add(at.parameter(SCRATCH), at.word(QKV)), e.mul(row, at.word(QKV_STRIDE)))
        return e.at(heads, index, 4 * self.head_dim)

    def cached(self, row: ir.Value, index: ir.Value) -> ir.Value:
        """The cache of a row's key head, or (behind those) value head."""
        e, at = self.e, self.at
        cache = e.add(at.parameter(CACHE), e.mul(at.word(LAYER), at.parameter(LAYER_BYTES)))
        cache = e.add(cache, e.mul(row, at.parameter(ROW_BYTES)))
        return e.add(cache, e.mul(index, at.parameter(HEAD_BYTES)))

    def slot(self, row: ir.Value, index: ir.Value) -> ir.Value:
        return self.e.at(self.cached(row, index), self.position(row), self.cached_bytes * self.head_dim)

    def load_cached(self, base: ir.Value, index: ir.Value) -> ir.Value:
        value = self.e.load(self.e.at(base, index, self.cached_bytes), vector(self.cached_type, self.width), align=2)
        return value if self.cached_type == F32 else self.e.builder.fpext(value, vector(F32, self.width))

    def store_cached(self, value: ir.Value, base: ir.Value, index: ir.Value) -> None:
        if self.cached_type == F16:
            value = self.e.builder.fptrunc(value, vector(F16, self.width) if value.type != F32 else F16)
        self.e.store(value, self.e.at(base, index, self.cached_bytes), align=2)

    def rotate_query(self, row: ir.Value, head: ir.Value) -> None:
        where = self.head(row, head)
        self._rotate(row, where, self.at.word(Q_NORM), lambda value, i: self.e.store_floats(value, where, i))

    def rotate_key(self, row: ir.Value, kv_head: ir.Value) -> None:
        where = self.head(row, self.e.add(self.n_heads, kv_head))
        slot = self.slot(row, kv_head)
        self._rotate(row, where, self.at.word(K_NORM), lambda value, i: self.store_cached(value, slot, i))

    def copy_value(self, row: ir.Value, kv_head: ir.Value) -> None:
        e, behind_keys = self.e, self.e.add(self.n_kv_heads, kv_head)
        source = self.head(row, e.add(self.n_heads, behind_keys))
        target = self.slot(row, behind_keys)
        with e.loop(0, self.head_dim, self.width) as i:
            self.store_cached(e.load_floats(source, i, self.width), target, i)

    def _rotate(self, row: ir.Value, source: ir.Value, norm: ir.Value, put: Callable) -> None:
        """Normalise a head, if asked, rotate its pairs, (x0 + i x1) * (cos + i sin), and put them where they belong."""
        e, b = self.e, self.e.builder
        rotation = e.at(self.at.parameter(ROTATIONS), self.position(row), 4 * self.head_dim)
        scale = Variable(e, F32, e.float(1.0))
        with e.when(e.is_set(norm)):
            scale.set(inverse_rms(e, source, e.int(self.head_dim), self.epsilon))
        factor = scale.get()
        with e.loop(0, self.head_dim, 2) as i:
            pair = [Variable(e, F32, b.fmul(e.load_floats(source, e.add(i, j), 1), factor)) for j in range(2)]
            with e.when(e.is_set(norm)):
                for j in range(2):
                    pair[j].set(b.fmul(pair[j].get(), e.load_floats(norm, e.add(i, j), 1)))
            x0, x1 = pair[0].get(), pair[1].get()
            cos, sin = e.load_floats(rotation, i, 1), e.load_floats(rotation, e.add(i, 1), 1)
            put(b.fsub(b.fmul(x0, cos), b.fmul(x1, sin)), i)
            put(b.fadd(b.fmul(x0, sin), b.fmul(x1, cos)), e.add(i, 1))

    def partial(self, head: ir.Value, chunk: ir.Value, n_chunks: ir.Value) -> ir.Value:
        """Where a chunk's result for a head waits to be merged."""
        e = self.e
        return e.at(self.at.parameter(PARTIALS), e.add(e.mul(head, n_chunks), chunk), sum_bytes(self.head_dim))

    def put(self, row: ir.Value, head: ir.Value, result: ir.Value) -> None:
        """A finished sum over its weights, where the next product reads it."""
        e, width = self.e, self.width
        mixed = e.add(e.add(self.at.parameter(SCRATCH), self.at.word(MIXED)), e.mul(row, self.at.word(MIXED_STRIDE)))
        weight_sum = e.load(e.add(result, 4 * self.head_dim + 4), F32, align=4)
        inverse = e.splat(e.builder.fdiv(e.float(1.0), weight_sum), width)
        with e.loop(0, self.head_dim, width) as i:
            value = e.builder.fmul(e.load_floats(result, i, width), inverse)
            e.store_floats(value, e.at(mixed, head, 4 * self.head_dim), i)


def sum_bytes(head_dim: int) -> int:
    """A running softmax in memory: D sums of weighted values, the highest score, the sum of weights; padded."""
    return round_up(4 * head_dim + 8, CACHE_LINE_BYTES)


class _Queries:
    """Neighbouring rows that share a cache, times heads that share a key head: they read the same keys.

    softmax(query . keys / sqrt(D)) . values, with the softmax running along (arXiv:2205.14135), KEYS_AT_ONCE keys a
    turn. It starts afresh with each chunk of keys, and chunks are merged in their order, so that the sums are the
    same however threads share the work.
    """

    def __init__(self, attention: _Attention, first_row, n_rows, first_head, n_heads):
        self.attention, self.e = attention, attention.e
        self.first_row, self.first_head, self.n_heads = first_row, first_head, n_heads
        e, self.head_dim, self.width = self.e, attention.head_dim, attention.width
        self.pieces = range(0, self.head_dim, self.width)
        self.count = e.mul(n_rows, n_heads)
        kv_head = e.div(first_head, e.div(attention.n_heads, attention.n_kv_heads))
        self.keys = attention.cached(first_row, kv_head)
        self.values = attention.cached(first_row, e.add(attention.n_kv_heads, kv_head))
        self.n_keys = e.add(attention.position(e.sub(e.add(first_row, n_rows), 1)), 1)  # of the last row
        self._vector_bytes, self._sum_bytes = round_up(4 * self.head_dim, CACHE_LINE_BYTES), sum_bytes(self.head_dim)
        self._item_bytes = self._vector_bytes + 2 * self._sum_bytes + 64
        self._base = e.reserve(MAX_QUERIES * self._item_bytes)

    def place(self, query: ir.Value) -> tuple[ir.Value, ir.Value]:
        """A query's row and head."""
        e = self.e
        row = e.add(self.first_row, e.div(query, self.n_heads))
        return row, e.add(self.first_head, e.builder.urem(query, self.n_heads))

    def vector(self, query: ir.Value) -> ir.Value:
        return self.e.at(self._base, query, self._item_bytes)

    def chunk(self, query: ir.Value) -> ir.Value:
        """The running softmax of the present chunk."""
        return self.e.add(self.vector(query), self._vector_bytes)

    def result(self, query: ir.Value) -> ir.Value:
        """That of all chunks before."""
        return self.e.add(self.chunk(query), self._sum_bytes)

    def n_seen(self, query: ir.Value) -> ir.Value:
        """How many keys a query sees: those up to its own."""
        return self.e.add(self.result(query), self._sum_bytes)

    def load(self) -> None:
        e = self.e
        with e.loop(0, self.count) as query:
            row, head = self.place(query)
            source, scale = self.attention.head(row, head), e.float(self.head_dim**-0.5, self.width)
            for i in self.pieces:
                x = e.builder.fmul(e.load_floats(source, e.int(i), self.width), scale)
                e.store_floats(x, self.vector(query), e.int(i))
            e.store(e.add(self.attention.position(row), 1), self.n_seen(query), align=8)
            self.clear(self.result(query))

    def start_chunk(self) -> None:
        with self.e.loop(0, self.count) as query:
            self.clear(self.chunk(query))

    def clear(self, where: ir.Value) -> None:
        e = self.e
        for i in self.pieces:
            e.store_floats(e.float(0.0, self.width), where, e.int(i))
        e.store(e.float(-1e30), e.add(where, 4 * self.head_dim), align=4)
        e.store(e.float(0.0), e.add(where, 4 * self.head_dim + 4), align=4)

    def copy(self, source: ir.Value, target: ir.Value) -> None:
        e = self.e
        for i in self.pieces:
            e.store_floats(e.load_floats(source, e.int(i), self.width), target, e.int(i))
        for i in range(2):
            index = e.int(self.head_dim + i)
            e.store_floats(e.load_floats(source, index, 1), target, index)

    def merge(self, result: ir.Value, chunk: ir.Value) -> None:
        """Add a chunk's sums to those before it, both relative to the higher of their highest scores."""
        e, b, at = self.e, self.e.builder, 4 * self.head_dim
        ours, theirs = e.load(e.add(result, at), F32, align=4), e.load(e.add(chunk, at), F32, align=4)
        highest = e.fmax(ours, theirs)
        decays = [e.exp(b.fsub(value, highest)) for value in (ours, theirs)]
        e.store(highest, e.add(result, at), align=4)
        sums = [e.load(e.add(where, at + 4), F32, align=4) for where in (result, chunk)]
        e.store(e.fma(sums[1], decays[1], b.fmul(sums[0], decays[0])), e.add(result, at + 4), align=4)
        factors = [e.splat(decay, self.width) for decay in decays]
        for i in self.pieces:
            values = [e.load_floats(where, e.int(i), self.width) for where in (result, chunk)]
            e.store_floats(e.fma(values[1], factors[1], b.fmul(values[0], factors[0])), result, e.int(i))

    def read_keys(self, start: ir.Value, end: ir.Value) -> None:
        """Keys and values from `start` to `end` pass all queries."""
        e, last = self.e, self.e.sub(end, 1)
        keys, values = (e.reserve(4 * KEYS_AT_ONCE * self.head_dim) for _ in range(2))
        with e.loop(start, end, KEYS_AT_ONCE) as first:
            with e.loop(0, KEYS_AT_ONCE) as j:  # in fp32, once for all queries; behind the end, the last one again
                slot = e.mul(e.min(e.add(first, j), last), self.head_dim)
                target = e.mul(j, self.head_dim)
                for i in self.pieces:
                    for source, local in ((self.keys, keys), (self.values, values)):
                        value = self.attention.load_cached(source, e.add(slot, i))
                        e.store_floats(value, local, e.add(target, i))
            with e.loop(0, self.count) as query:
                self._take_turn(query, first, keys, values)

    def _take_turn(self, query: ir.Value, first: ir.Value, keys: ir.Value, values: ir.Value) -> None:
        e, b, width = self.e, self.e.builder, self.width
        vectors = [e.load_floats(self.vector(query), e.int(i), width) for i in self.pieces]
        products = []
        for j in range(KEYS_AT_ONCE):
            product = None
            for i, x in zip(self.pieces, vectors, strict=True):
                key = e.load_floats(keys, e.int(j * self.head_dim + i), width)
                product = b.fmul(x, key) if product is None else e.fma(x, key, product)
            products.append(product)
        weights = self._weigh(_sum_each(e, products), query, first)
        totals = [e.load_floats(self.chunk(query), e.int(i), width) for i in self.pieces]
        for j in range(KEYS_AT_ONCE):
            weight = e.splat(b.extract_element(weights, e.int(j, I32)), width)
            for piece, i in enumerate(self.pieces):
                value = e.load_floats(values, e.int(j * self.head_dim + i), width)
                totals[piece] = e.fma(weight, value, totals[piece])
        for i, total in zip(self.pieces, totals, strict=True):
            e.store_floats(total, self.chunk(query), e.int(i))

    def _weigh(self, scores: ir.Value, query: ir.Value, first: ir.Value) -> ir.Value:
        """The weights of the next KEYS_AT_ONCE keys, relative to the highest score so far."""
        e, b, lanes, width = self.e, self.e.builder, KEYS_AT_ONCE, self.width
        chunk = self.chunk(query)
        highest_at, sum_at = e.add(chunk, 4 * self.head_dim), e.add(chunk, 4 * self.head_dim + 4)
        numbers = b.add(e.splat(first, lanes), ir.Constant(vector(I64, lanes), list(range(lanes))))
        is_seen = b.icmp_unsigned("<", numbers, e.splat(e.load(self.n_seen(query), I64, align=8), lanes))
        scores = b.select(is_seen, scores, e.float(-1e30, lanes))
        before, here = e.load(highest_at, F32, align=4), e.max_lanes(scores)
        with e.when(b.fcmp_ordered(">", here, before)):  # a new highest: all so far shrinks
            decay = e.exp(b.fsub(before, here))
            e.store(here, highest_at, align=4)
            e.store(b.fmul(e.load(sum_at, F32, align=4), decay), sum_at, align=4)
            for i in self.pieces:
                total = e.load_floats(chunk, e.int(i), width)
                e.store_floats(b.fmul(total, e.splat(decay, width)), chunk, e.int(i))
        highest = e.splat(e.load(highest_at, F32, align=4), lanes)
        weights = b.select(is_seen, e.exp(b.fsub(scores, highest)), e.float(0.0, lanes))
        e.store(b.fadd(e.load(sum_at, F32, align=4), e.sum_lanes(weights)), sum_at, align=4)
        return weights


def _sum_each(e: Emitter, vectors: list[ir.Value]) -> ir.Value:
    """The sum of each of 16 vectors' lanes, as one vector."""
    b = e.builder
    if vectors[0].type.count != len(vectors):
        result = ir.Constant(vector(F32, len(vectors)), ir.Undefined)
        for i, value in enumerate(vectors):
            result = b.insert_element(result, e.sum_lanes(value), e.int(i, I32))
        return result
    n = len(vectors)
    evens, odds = (ir.Constant(ir.VectorType(I32, n), list(range(i, 2 * n, 2))) for i in range(2))
    while len(vectors) > 1:  # neighbours added, two vectors into one
        vectors = [
            b.fadd(b.shuffle_vector(one, other, evens), b.shuffle_vector(one, other, odds))
            for one, other in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    return vectors[0]
