"""Kernels of matrix products: weights as they are packed, rows of activations, fp32 out.

A weight of a group is code * scale + offset, and an activation is a whole number of 16 bits times a scale for
each 32 inputs. So what is summed inside a group are whole numbers, without any rounding; scales and offsets, as
exact as the file has them (whole numbers times a factor of 256 inputs, in the K formats), come once a group:

    y[n] = sum over g of  scale[n, g] * sx[g] * (sum over k in g of code[n, k] * qx[k])  +  offset[n, g] * sum of x in g

A processor multiplies and adds 32 such pairs of numbers in one instruction (AVX-512), or 16 (AVX2). A row's
result has the same bits whatever other rows are computed with it.

Packed layout, 32 rows a tile, in two halves of 16 rows, 64 bytes at a time: 32 words of 16 bits, word 2 r + e
for row r of the half. With 4 bits, a word's nibble j (from the low end) is the code of input 8 s + 2 j + e; with
8 bits, its byte j that of input 4 s + 2 j + e. Scales and offsets: for each tile, group and half, 16 numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from llm_magic.engine.native.calls import GRANULE, INPUT_GROUP, N_ROWS, SCRATCH, TILE_ROWS, Operands
from llm_magic.engine.native.emit import F16, F32, I8, I16, I32, I64, LANES, Emitter, Variable, vector

# words of an instruction, behind the function's address
OUT, OUT_STRIDE, N, K, CODES, SCALES, OFFSETS, BIAS, IS_ADDED, ZERO_POINT, BLOCK_SCALES, BLOCK_OFFSETS = range(1, 13)
BLOCK_INPUTS = 256  # that share the fp16 factor of int8 scales


@dataclass(frozen=True, slots=True)
class Product:
    """What a kernel of a product is made for. `rows`: so many at once; it takes any multiple of them."""

    bits: int  # 4 or 8: packed codes; 16 (bf16 or fp16) and 32: dense, rows one after the other
    rows: int
    group_size: int = 0
    kind: str = ""  # of scales and offsets, as in `Factors`; of a dense matrix, its type
    has_offset: bool = False

    @property
    def name(self) -> str:
        return "product_" + "_".join(str(getattr(self, field)) for field in self.__slots__)


def emit_product(module: ir.Module, name: str, product: Product) -> None:
    """One matrix times all prepared rows: each thread makes its share of the outputs."""
    e = Emitter(module, name, [I64] * 4)
    (_emit_packed if product.bits < 16 else _emit_dense)(e, Operands(e), product)
    e.finish()


def _emit_packed(e: Emitter, at: Operands, product: Product) -> None:
    k, n_rows = at.word(K), product.rows
    inputs, n_groups = at.inputs(k, n_rows), e.div(k, product.group_size)
    zero_point = e.builder.trunc(at.word(ZERO_POINT), I32)
    start, end = at.share(e.div(e.add(at.word(N), TILE_ROWS - 1), TILE_ROWS))
    group_bytes = product.group_size * TILE_ROWS * product.bits // 8
    # the sums inside a group stay in registers; the totals, which are touched once a group, wait in memory
    totals = e.reserve(4 * TILE_ROWS * n_rows)
    total_at = [[e.add(totals, 4 * LANES * (n_rows * half + i)) for i in range(n_rows)] for half in range(2)]
    with e.loop(start, end) as tile, e.loop(0, at.parameter(N_ROWS), n_rows) as first_row:
        for address in total_at[0] + total_at[1]:
            e.store(e.float(0.0, LANES), address, align=64)
        blocks = {name: inputs.block(name, first_row) for name in ("pairs", "scales", "code_sums", "sums")}
        tile_codes = e.add(at.word(CODES), e.mul(tile, e.mul(n_groups, group_bytes)))
        with e.loop(0, n_groups) as group:
            first_pair = e.mul(group, product.group_size // 2)
            sums = _sum_products(
                e, product, inputs, blocks["pairs"], e.add(tile_codes, e.mul(group, group_bytes)), first_pair
            )
            scales_at = e.add(e.mul(tile, n_groups), group)
            block_at = e.add(e.mul(tile, e.div(k, BLOCK_INPUTS)), e.div(group, BLOCK_INPUTS // product.group_size))
            scales = [
                _load_factors(e, product, at.word(SCALES), at.word(BLOCK_SCALES), scales_at, block_at, half)
                for half in range(2)
            ]
            if product.has_offset:
                offsets = [
                    _load_factors(e, product, at.word(OFFSETS), at.word(BLOCK_OFFSETS), scales_at, block_at, half)
                    for half in range(2)
                ]
            input_group = e.div(e.mul(group, product.group_size), INPUT_GROUP)
            for i in range(n_rows):
                input_scale = e.splat(e.load(inputs.item(blocks["scales"], input_group, i), F32, align=4), LANES)
                if product.bits == 4 and not product.has_offset:  # signed codes: their zero point is taken off
                    shift = e.builder.mul(
                        _input_sum(e, product, inputs, blocks["code_sums"], I32, group, i), zero_point
                    )
                    shift = e.splat(shift, LANES)
                if product.has_offset:
                    input_sum = e.splat(_input_sum(e, product, inputs, blocks["sums"], F32, group, i), LANES)
                for half in range(2):
                    whole = sums[half][i]
                    if product.bits == 4 and not product.has_offset:
                        whole = e.builder.sub(whole, shift)
                    whole = e.builder.sitofp(whole, vector(F32, LANES))
                    total = e.load(total_at[half][i], whole.type, align=64)
                    total = e.fma(whole, e.builder.fmul(scales[half], input_scale), total)
                    if product.has_offset:
                        total = e.fma(offsets[half], input_sum, total)
                    e.store(total, total_at[half][i], align=64)
        with e.loop(0, 2 * n_rows) as i:
            first = e.add(e.mul(tile, TILE_ROWS), e.mul(e.div(i, n_rows), LANES))
            total = e.load(e.at(totals, i, 4 * LANES), vector(F32, LANES), align=64)
            _store_rows(e, at, first, e.add(first_row, e.builder.urem(i, e.int(n_rows))), total)


def _sum_products(e, product, inputs, pairs, codes, first_pair) -> list[list[ir.Value]]:
    """The sums of code * x over one group: [half][row] of vectors over 16 rows of the matrix."""
    per_word, kind = 16 // product.bits, vector(I32, LANES)
    sums = [[Variable(e, kind, e.ints(0, LANES, I32)) for _ in range(product.rows)] for _ in range(2)]
    with e.loop(0, product.group_size // (2 * per_word)) as step:
        step_codes, first = e.at(codes, step, 128), e.add(first_pair, e.mul(step, per_word))
        weights = [_expand(e, product.bits, e.add(step_codes, 64 * half)) for half in range(2)]
        for j in range(per_word):
            for i in range(product.rows):
                pair = e.load(inputs.item(pairs, e.add(first, j), i), I32, align=4)
                x = e.builder.bitcast(e.splat(pair, LANES), vector(I16, 2 * LANES))
                for half in range(2):
                    total = sums[half][i]
                    total.set(e.builder.add(total.get(), _multiply_pairs(e, weights[half][j], x)))
    return [[total.get() for total in row] for row in sums]


def _expand(e: Emitter, bits: int, address: ir.Value) -> list[ir.Value]:
    """64 bytes of codes as vectors of 32 words, one for each code in a word."""
    b, words = e.builder, e.load(address, vector(I16, 2 * LANES), align=64)

    def number(value: int) -> ir.Value:
        return e.ints(value, 2 * LANES, I16)

    if bits == 8:
        return [b.ashr(b.shl(words, number(8)), number(8)), b.ashr(words, number(8))]
    shifted = [words, *(b.lshr(words, number(4 * j)) for j in (1, 2, 3))]
    return [b.and_(part, number(15)) for part in shifted[:3]] + shifted[3:]


def _multiply_pairs(e: Emitter, a: ir.Value, x: ir.Value) -> ir.Value:
    """a[2 i] * x[2 i] + a[2 i + 1] * x[2 i + 1] for 32 words each: 16 numbers of 32 bits."""
    b, kind = e.builder, vector(I32, LANES)
    if e.has("avx512bw"):
        return e.call("llvm.x86.avx512.pmaddw.d.512", kind, a, x)
    if e.has("avx2"):
        halves = []
        for start in (0, LANES):
            mask = ir.Constant(ir.VectorType(I32, LANES), list(range(start, start + LANES)))
            parts = [b.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), mask) for v in (a, x)]
            halves.append(e.call("llvm.x86.avx2.pmadd.wd", vector(I32, LANES // 2), *parts))
        return b.shuffle_vector(*halves, ir.Constant(ir.VectorType(I32, LANES), list(range(LANES))))
    total = None
    for start in range(2):
        mask = ir.Constant(ir.VectorType(I32, LANES), list(range(start, 2 * LANES, 2)))
        parts = [b.sext(b.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), mask), kind) for v in (a, x)]
        total = b.mul(*parts) if total is None else b.add(total, b.mul(*parts))
    return total


def _load_factors(e, product, base, blocks, index, block_index, half: int) -> ir.Value:
    """The 16 scales, or offsets, of a half tile's group, in fp32."""

    def load(base: ir.Value, index: ir.Value, kind: ir.Type, n_bytes: int) -> ir.Value:
        address = e.add(e.at(base, index, TILE_ROWS * n_bytes), LANES * n_bytes * half)
        return e.load(address, vector(kind, LANES), align=16)

    floats = vector(F32, LANES)
    if product.kind == "fp32":
        return load(base, index, F32, 4)
    if product.kind == "fp16":
        return e.builder.fpext(load(base, index, F16, 2), floats)
    whole = e.builder.sitofp(load(base, index, I8, 1), floats)
    return e.builder.fmul(whole, e.builder.fpext(load(blocks, block_index, F16, 2), floats))


def _input_sum(e, product, inputs, block, kind, group, row) -> ir.Value:
    """The sum of one group's activations of a row."""
    n = product.group_size // GRANULE
    parts = [e.load(inputs.item(block, e.add(e.mul(group, n), i), row), kind, align=4) for i in range(n)]
    if n == 1:
        return parts[0]
    return e.builder.fadd(*parts) if kind == F32 else e.builder.add(*parts)


def _store_rows(e: Emitter, at: Operands, first: ir.Value, row: ir.Value, value: ir.Value) -> None:
    """Put 16 outputs, from `first` on, where they belong; those beyond N are padding."""
    b, n = e.builder, at.word(N)
    is_whole = b.icmp_unsigned("<=", e.add(first, LANES), n)
    with b.if_else(is_whole) as (whole, part):
        with whole:
            _store_outputs(e, at, first, row, value)
        with part:
            lanes = Variable(e, value.type, value)
            with e.loop(first, n) as index:
                _store_outputs(e, at, index, row, b.extract_element(lanes.get(), e.sub(index, first)))


def _store_outputs(e: Emitter, at: Operands, first: ir.Value, row: ir.Value, value: ir.Value) -> None:
    """One or more neighbouring outputs, with their bias, added to what is there if asked."""
    out = e.add(e.add(at.parameter(SCRATCH), at.word(OUT)), e.mul(at.word(OUT_STRIDE), row))
    out, bias = e.at(out, first, 4), at.word(BIAS)
    result = Variable(e, value.type, value)
    with e.when(e.is_set(bias)):
        result.set(e.builder.fadd(result.get(), e.load(e.at(bias, first, 4), value.type, align=4)))
    with e.when(e.is_set(at.word(IS_ADDED))):
        result.set(e.builder.fadd(result.get(), e.load(out, value.type, align=4)))
    e.store(result.get(), out, align=4)


DENSE_ROWS = 4  # rows of a dense matrix at once: they share the loads of x


def _emit_dense(e: Emitter, at: Operands, product: Product) -> None:
    """Rows of floats, one after the other: sums along them, in fp32."""
    k, n = at.word(K), at.word(N)
    inputs = at.inputs(e.mul(e.div(e.add(k, INPUT_GROUP - 1), INPUT_GROUP), INPUT_GROUP), product.rows)
    start, end = at.share_tiles(n)
    whole = e.add(start, e.mul(e.div(e.sub(end, start), DENSE_ROWS), DENSE_ROWS))
    for first, last, count in ((start, whole, DENSE_ROWS), (whole, end, 1)):
        with e.loop(first, last, count) as index, e.loop(0, at.parameter(N_ROWS), product.rows) as row:
            _multiply_dense(e, at, product, inputs, index, count, row)


def _multiply_dense(e, at, product, inputs, first, count, first_row) -> None:
    b, k, item_bytes = e.builder, at.word(K), product.bits // 8
    rows = [e.add(first_row, i) for i in range(product.rows)]
    matrix_rows = [e.at(at.word(CODES), e.mul(e.add(first, i), k), item_bytes) for i in range(count)]
    whole = e.mul(e.div(k, LANES), LANES)
    sums = {width: [[Variable(e, vector(F32, width), e.float(0.0, width)) for _ in rows] for _ in range(count)]
            for width in (LANES, 1)}  # fmt: skip
    for start, end, width in ((0, whole, LANES), (whole, k, 1)):
        with e.loop(start, end, width) as position:
            weights = [_load_dense(e, product, e.at(row, position, item_bytes), width) for row in matrix_rows]
            for j, row in enumerate(rows):
                x = e.load_floats(inputs.floats(row), position, width)
                for i in range(count):
                    total = sums[width][i][j]
                    total.set(e.fma(weights[i], x, total.get()))
    for i in range(count):
        for j, row in enumerate(rows):
            value = b.fadd(e.sum_lanes(sums[LANES][i][j].get()), sums[1][i][j].get())
            _store_outputs(e, at, e.add(first, i), row, value)


def _load_dense(e: Emitter, product: Product, address: ir.Value, width: int) -> ir.Value:
    """Weights as fp32; bf16 is their upper half."""
    if product.bits == 32:
        return e.load(address, vector(F32, width), align=4)
    if product.kind == "float16":
        return e.builder.fpext(e.load(address, vector(F16, width), align=2), vector(F32, width))
    words = e.builder.zext(e.load(address, vector(I16, width), align=2), vector(I32, width))
    return e.builder.bitcast(e.builder.shl(words, e.ints(16, width, I32)), vector(F32, width))
