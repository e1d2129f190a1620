"""Kernels that count the logits below a row's best: a histogram with narrow bins near them, wide ones far below."""

from __future__ import annotations

from llvmlite import ir

from llm_magic.engine.native.calls import N_ROWS, Operands
from llm_magic.engine.native.emit import F32, I32, I64, LANES, Emitter, Variable, vector
from llm_magic.generation import TAIL_BINS, TAIL_SPAN

# words of the instructions, behind the function's address
LOGITS, N_LOGITS, HIGHEST, PARTS, RESULTS = range(1, 6)

CHUNK = 4096  # logits that are counted together; chunks are merged in their order, whoever counted them
COPIES = 4  # of a chunk's histogram: neighbours that fall into the same bin need not wait for each other
PAIR_BYTES = 8  # of a bin: how many, and the sum of their distances from the highest
ROW_BYTES = TAIL_BINS * PAIR_BYTES
COPY_BYTES = ROW_BYTES + PAIR_BYTES  # one bin more, for what is not counted
PART_BYTES = COPIES * COPY_BYTES
_FARTHEST = 1e30  # what lies farther off (minus infinity) is not counted, nor what is no number


def emit_count_tail(module: ir.Module, name: str) -> None:
    """For each row and chunk, how many logits fall into each bin, and how far they are from the row's highest."""
    e = Emitter(module, name, [I64] * 4)
    at, b = Operands(e), e.builder
    pair, n = vector(F32, 2), at.word(N_LOGITS)
    n_chunks = e.div(e.add(n, CHUNK - 1), CHUNK)
    bins_at, gaps_at = e.reserve(4 * LANES), e.reserve(4 * LANES)
    start, end = at.share(e.mul(at.parameter(N_ROWS), n_chunks))
    with e.loop(start, end) as item:
        row, chunk = e.div(item, n_chunks), b.urem(item, n_chunks)
        logits = e.at(at.word(LOGITS), e.mul(row, n), 4)
        highest = e.load_floats(at.word(HIGHEST), row, 1)
        part = e.at(at.word(PARTS), item, PART_BYTES)
        with e.loop(0, PART_BYTES // PAIR_BYTES) as i:
            e.store(ir.Constant(pair, [0.0, 0.0]), e.at(part, i, PAIR_BYTES))
        first = e.mul(chunk, CHUNK)
        last = e.min(e.add(first, CHUNK), n)
        whole = e.add(first, e.mul(e.div(e.sub(last, first), LANES), LANES))
        for begin, stop, width in ((first, whole, LANES), (whole, last, 1)):
            with e.loop(begin, stop, width) as i:
                gaps = b.fsub(e.splat(highest, width), e.load_floats(logits, i, width))
                is_counted = b.fcmp_ordered("<", gaps, e.float(_FARTHEST, width))
                gaps = b.select(is_counted, gaps, e.float(0.0, width))
                gaps = e.fmax(gaps, e.float(0.0, width))  # penalties below 1 lift some above
                places = e.fsqrt(b.fmul(gaps, e.float(TAIL_BINS**2 / TAIL_SPAN, width)))
                last_bin = e.float(TAIL_BINS - 1, width)
                places = b.select(b.fcmp_ordered("<", places, last_bin), places, last_bin)
                bins = b.fptosi(places, vector(I32, width))
                e.store(b.select(is_counted, bins, e.ints(TAIL_BINS, width, I32)), bins_at, align=4)
                e.store(gaps, gaps_at, align=4)
                for lane in range(width):
                    bin_ = b.zext(e.load(e.at(bins_at, lane, 4), I32, align=4), I64)
                    place = e.at(e.add(part, lane % COPIES * COPY_BYTES), bin_, PAIR_BYTES)
                    gap = e.load_floats(gaps_at, e.int(lane), 1)
                    one = b.insert_element(ir.Constant(pair, [1.0, 0.0]), gap, e.int(1, I32))
                    e.store(b.fadd(e.load(place, pair, align=4), one), place, align=4)
    e.finish()


def emit_merge_tails(module: ir.Module, name: str) -> None:
    """The chunks' counts as one histogram for each row; the first thread does it."""
    e = Emitter(module, name, [I64] * 4)
    at, b = Operands(e), e.builder
    pair = vector(F32, 2)
    n_chunks = e.div(e.add(at.word(N_LOGITS), CHUNK - 1), CHUNK)
    with e.when(e.equal(at.thread, 0)), e.loop(0, at.parameter(N_ROWS)) as row:
        parts = e.at(at.word(PARTS), e.mul(row, n_chunks), PART_BYTES)
        with e.loop(0, TAIL_BINS) as bin_:
            total = Variable(e, pair, ir.Constant(pair, [0.0, 0.0]))
            with e.loop(0, e.mul(n_chunks, COPIES)) as copy:
                counted = e.load(e.at(e.at(parts, copy, COPY_BYTES), bin_, PAIR_BYTES), pair, align=4)
                total.set(b.fadd(total.get(), counted))
            e.store(total.get(), e.at(e.at(at.word(RESULTS), row, ROW_BYTES), bin_, PAIR_BYTES), align=4)
    e.finish()
