"""Kernels over the logits of a vocabulary: what normalises them, their entropy, and a token's rank, in one pass."""

from __future__ import annotations

from llvmlite import ir

from llm_magic.engine.native.calls import N_ROWS, Operands
from llm_magic.engine.native.emit import F32, I64, LANES, Emitter, Variable

# words of the instructions, behind the function's address
LOGITS, N_LOGITS, IDS, PARTS, RESULTS = range(1, 6)

CHUNK = 4096  # logits that are summed together; chunks are merged in their order, whoever computed them
PART_BYTES = 16  # highest logit, sum of exp(logit - highest), sum of that times (logit - highest), number above


def emit_summarise(module: ir.Module, name: str) -> None:
    """For each row and chunk, the four numbers of its logits; `number above` counts those above the row's own token."""
    e = Emitter(module, name, [I64] * 4)
    at, b = Operands(e), e.builder
    n = at.word(N_LOGITS)
    n_chunks = e.div(e.add(n, CHUNK - 1), CHUNK)
    start, end = at.share(e.mul(at.parameter(N_ROWS), n_chunks))
    with e.loop(start, end) as item:
        row, chunk = e.div(item, n_chunks), b.urem(item, n_chunks)
        logits = e.at(at.word(LOGITS), e.mul(row, n), 4)
        own = e.load_floats(logits, e.load(e.at(at.word(IDS), row, 8), I64, align=8), 1)
        first = e.mul(chunk, CHUNK)
        last = e.min(e.add(first, CHUNK), n)
        whole = e.add(first, e.mul(e.div(e.sub(last, first), LANES), LANES))
        ranges = ((first, whole, LANES), (whole, last, 1))
        highest = Variable(e, F32, e.float(-3e38))
        for begin, stop, width in ranges:
            lanes = Variable(e, (lowest := e.float(-3e38, width)).type, lowest)
            with e.loop(begin, stop, width) as i:
                lanes.set(e.fmax(e.load_floats(logits, i, width), lanes.get()))
            highest.set(e.fmax(e.max_lanes(lanes.get()), highest.get()))
        sums = [Variable(e, F32, e.float(0.0)) for _ in range(3)]
        for begin, stop, width in ranges:
            zero = e.float(0.0, width)
            lanes = [Variable(e, zero.type, zero) for _ in range(3)]
            top, mark = e.splat(highest.get(), width), e.splat(own, width)
            with e.loop(begin, stop, width) as i:
                logit = e.load_floats(logits, i, width)
                below, least = b.fsub(logit, top), e.float(-87.0, width)
                # a logit of minus infinity counts for nothing
                below = b.select(b.fcmp_ordered("<", below, least), least, below)
                weight = e.exp(below)
                lanes[0].set(b.fadd(lanes[0].get(), weight))
                lanes[1].set(e.fma(weight, below, lanes[1].get()))
                is_above = b.fcmp_ordered(">", logit, mark)
                lanes[2].set(b.fadd(lanes[2].get(), b.select(is_above, e.float(1.0, width), zero)))
            for total, part in zip(sums, lanes, strict=True):
                total.set(b.fadd(total.get(), e.sum_lanes(part.get())))
        part = e.at(at.word(PARTS), item, PART_BYTES)
        for i, value in enumerate((highest, *sums)):
            e.store_floats(value.get(), part, e.int(i))
    e.finish()


def emit_merge_summaries(module: ir.Module, name: str) -> None:
    """The chunks' numbers as one set for each row; the first thread does it."""
    e = Emitter(module, name, [I64] * 4)
    at, b = Operands(e), e.builder
    n_chunks = e.div(e.add(at.word(N_LOGITS), CHUNK - 1), CHUNK)
    with e.when(e.equal(at.thread, 0)), e.loop(0, at.parameter(N_ROWS)) as row:
        parts = e.at(at.word(PARTS), e.mul(row, n_chunks), PART_BYTES)
        highest = Variable(e, F32, e.float(-3e38))
        with e.loop(0, n_chunks) as chunk:
            highest.set(e.fmax(e.load_floats(e.at(parts, chunk, PART_BYTES), e.int(0), 1), highest.get()))
        totals = [Variable(e, F32, e.float(0.0)) for _ in range(3)]
        with e.loop(0, n_chunks) as chunk:
            top, weights, products, above = (
                e.load_floats(e.at(parts, chunk, PART_BYTES), e.int(i), 1) for i in range(4)
            )
            below = b.fsub(top, highest.get())
            decay = e.exp(below)
            totals[0].set(e.fma(weights, decay, totals[0].get()))
            # each logit lies lower, seen from the row's highest
            totals[1].set(e.fma(e.fma(weights, below, products), decay, totals[1].get()))
            totals[2].set(b.fadd(totals[2].get(), above))
        result = e.at(at.word(RESULTS), row, PART_BYTES)
        for i, value in enumerate((highest, *totals)):
            e.store_floats(value.get(), result, e.int(i))
    e.finish()
