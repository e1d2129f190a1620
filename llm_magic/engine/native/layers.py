"""Kernels between the matrix products: norms, what products read, the gated activation.

Each runs on all threads of a team, on its own share of the items; a barrier stands where one thread needs
what another wrote. Buffers are fp32.

Axis letters as in `engine/model.py`.
"""

from __future__ import annotations

from llvmlite import ir

from llm_magic.engine.native.calls import INPUT_GROUP, N_ROWS, SCRATCH, Inputs, Operands, float_word
from llm_magic.engine.native.emit import F32, I16, I32, I64, LANES, Emitter, Variable, vector

# words of the instructions, behind the function's address
IN, IN_STRIDE, WIDTH, NORM, EPSILON, TO, TO_STRIDE = range(1, 8)  # prepare (without TO), normalise
GATE, GATE_STRIDE, UP, N_GATED, ACTIVE, ACTIVE_STRIDE = range(1, 7)  # gate


def inverse_rms(e: Emitter, base: ir.Value, n: ir.Value, epsilon: ir.Value) -> ir.Value:
    """1 / sqrt(mean of squares + epsilon) of n floats."""
    b = e.builder
    zero = e.float(0.0, LANES)
    total, rest = Variable(e, zero.type, zero), Variable(e, F32, e.float(0.0))
    whole = e.mul(e.div(n, LANES), LANES)
    with e.loop(0, whole, LANES) as i:
        x = e.load_floats(base, i, LANES)
        total.set(e.fma(x, x, total.get()))
    with e.loop(whole, n) as i:
        x = e.load_floats(base, i, 1)
        rest.set(e.fma(x, x, rest.get()))
    squares = b.fadd(e.sum_lanes(total.get()), rest.get())
    mean = b.fdiv(squares, b.uitofp(n, F32))
    return b.fdiv(e.float(1.0), e.fsqrt(b.fadd(mean, epsilon)))


def _normalise(e: Emitter, source: ir.Value, target: ir.Value, n: ir.Value, norm: ir.Value, epsilon: ir.Value) -> None:
    """target = source / rms * norm; without a norm (0), a copy."""
    b = e.builder
    scale = Variable(e, F32, e.float(1.0))
    with e.when(e.is_set(norm)):
        scale.set(inverse_rms(e, source, n, epsilon))
    factor = scale.get()
    whole = e.mul(e.div(n, LANES), LANES)
    for start, end, width in ((0, whole, LANES), (whole, n, 1)):
        with e.loop(start, end, width) as i:
            y = Variable(e, vector(F32, width), e.load_floats(source, i, width))
            with e.when(e.is_set(norm)):
                y.set(b.fmul(b.fmul(y.get(), e.splat(factor, width)), e.load_floats(norm, i, width)))
            e.store_floats(y.get(), target, i)


def emit_normalise(module: ir.Module, name: str) -> None:
    """The final norm: one thread, each row."""
    e = Emitter(module, name, [I64] * 4)
    at = Operands(e)
    scratch = at.parameter(SCRATCH)
    with e.when(e.equal(at.thread, 0)), e.loop(0, at.parameter(N_ROWS)) as row:
        source = e.add(e.add(scratch, at.word(IN)), e.mul(row, at.word(IN_STRIDE)))
        target = e.add(e.add(scratch, at.word(TO)), e.mul(row, at.word(TO_STRIDE)))
        _normalise(e, source, target, at.word(WIDTH), at.word(NORM), float_word(e, at.word(EPSILON)))
    e.finish()


def emit_prepare(module: ir.Module, name: str, at_once: int, is_shared: bool, has_floats: bool) -> None:
    """Activations in the forms that products take (`Inputs`), normalised if asked.

    Threads share the inputs of all rows, not the rows: neighbouring rows lie in the same cache lines. A lone row is
    prepared by each thread for itself, since to share it would cost a barrier, which takes longer.
    """
    e = Emitter(module, name, [I64] * 4)
    at, b = Operands(e), e.builder
    n = at.word(WIDTH)
    n_groups = e.div(e.add(n, INPUT_GROUP - 1), INPUT_GROUP)
    inputs = at.inputs(e.mul(n_groups, INPUT_GROUP), at_once)
    start, end = at.share(n_groups) if is_shared else (e.int(0), n_groups)
    n_whole = e.min(e.div(n, INPUT_GROUP), end)
    last = e.reserve(4 * INPUT_GROUP)  # of the last group, the inputs that are there
    with e.loop(0, at.parameter(N_ROWS)) as row:
        source = e.add(e.add(at.parameter(SCRATCH), at.word(IN)), e.mul(at.word(IN_STRIDE), row))
        norm, scale = at.word(NORM), Variable(e, F32, e.float(1.0))
        with e.when(e.is_set(norm)):
            scale.set(inverse_rms(e, source, n, float_word(e, at.word(EPSILON))))
        factor = scale.get()

        def load(index: ir.Value, width: int) -> ir.Value:
            x = Variable(e, vector(F32, width), e.load_floats(source, index, width))
            with e.when(e.is_set(norm)):
                x.set(b.fmul(b.fmul(x.get(), e.splat(factor, width)), e.load_floats(norm, index, width)))
            return x.get()

        with e.loop(start, n_whole) as group:
            first = e.mul(group, INPUT_GROUP)
            _put_group(
                e, inputs, row, group, [load(e.add(first, i), LANES) for i in range(0, INPUT_GROUP, LANES)], has_floats
            )
        with e.loop(e.max(start, n_whole), end) as group:
            first = e.mul(group, INPUT_GROUP)
            for i in range(0, INPUT_GROUP, LANES):
                e.store_floats(e.float(0.0, LANES), last, e.int(i))
            with e.loop(first, n) as i:
                e.store_floats(load(i, 1), last, e.sub(i, first))
            xs = [e.load_floats(last, e.int(i), LANES) for i in range(0, INPUT_GROUP, LANES)]
            _put_group(e, inputs, row, group, xs, has_floats)
    e.finish()


def _put_group(
    e: Emitter, inputs: Inputs, row: ir.Value, group: ir.Value, xs: list[ir.Value], has_floats: bool
) -> None:
    """INPUT_GROUP activations as 16-bit numbers times one scale: the largest becomes 32,767."""
    b, at_once = e.builder, inputs.at_once
    first_row = e.mul(e.div(row, at_once), at_once)
    lane = e.sub(row, first_row)

    def put(name: str, index: ir.Value, value: ir.Value) -> None:
        e.store(value, inputs.item(inputs.block(name, first_row), index, lane), align=4)

    highest = e.float(0.0, LANES)
    for x in xs:
        highest = e.maximum(highest, e.fabs(x))
    # a group of zeros keeps a scale above 0; what is no number makes the scale none, and so all that depends on it
    scale = e.maximum(b.fmul(e.max_lanes(highest, e.maximum), e.float(1 / 32767)), e.float(1e-30))
    inverse = e.splat(b.fdiv(e.float(1.0), scale), LANES)
    put("scales", group, scale)
    for i, x in enumerate(xs):
        index = e.add(e.mul(group, len(xs)), i)
        if has_floats:
            e.store_floats(x, inputs.floats(row), e.mul(index, LANES))
        codes = b.fptosi(e.rint(b.fmul(x, inverse)), vector(I32, LANES))
        pairs = b.bitcast(b.trunc(codes, vector(I16, LANES)), vector(I32, LANES // 2))
        first_pair = e.mul(index, LANES // 2)
        if at_once == 1:
            put("pairs", first_pair, pairs)
        else:
            for j in range(LANES // 2):
                put("pairs", e.add(first_pair, j), b.extract_element(pairs, e.int(j, I32)))
        total = e.sum_lanes(codes)
        put("code_sums", index, total)
        put("sums", index, b.fmul(b.sitofp(total, F32), scale))


def emit_gate(module: ir.Module, name: str) -> None:
    """silu(gate) * up, each thread on the rows that its own products made."""
    e = Emitter(module, name, [I64] * 4)
    at, b = Operands(e), e.builder
    n, scratch = at.word(N_GATED), at.parameter(SCRATCH)
    start, end = at.share_tiles(n)
    whole = e.add(start, e.mul(e.div(e.sub(end, start), LANES), LANES))
    with e.loop(0, at.parameter(N_ROWS)) as row:
        gates = e.add(e.add(scratch, at.word(GATE)), e.mul(at.word(GATE_STRIDE), row))
        ups = e.add(e.add(scratch, at.word(UP)), e.mul(at.word(GATE_STRIDE), row))
        out = e.add(e.add(scratch, at.word(ACTIVE)), e.mul(at.word(ACTIVE_STRIDE), row))
        for first, last, width in ((start, whole, LANES), (whole, end, 1)):
            with e.loop(first, last, width) as i:
                gate = e.load_floats(gates, i, width)
                # x / (1 + e^-x) with e to a number that is not above 0: e^-|x|
                decay = e.exp(b.fneg(e.fabs(gate)))
                one = e.float(1.0, width)
                is_negative = b.fcmp_ordered("<", gate, e.float(0.0, width))
                sigmoid = b.fdiv(b.select(is_negative, decay, one), b.fadd(one, decay))
                e.store_floats(b.fmul(b.fmul(gate, sigmoid), e.load_floats(ups, i, width)), out, i)
    e.finish()
