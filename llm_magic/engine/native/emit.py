"""A thin layer over LLVM's instruction builder, so that a kernel reads like the loops it is.

A kernel is emitted for the processor it will run on. All numbers are 64-bit integers or fp32; vectors
are fp32 with `width` lanes, which LLVM cuts into what the processor has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F16, F32, POINTER, VOID = ir.HalfType(), ir.FloatType(), ir.PointerType(), ir.VoidType()
LANES = 16  # of a vector, where nothing asks for fewer


def vector(element: ir.Type, width: int) -> ir.Type:
    """A vector type; of one lane, the element itself."""
    return ir.VectorType(element, width) if width > 1 else element


class _FunctionPointer(ir.PointerType):
    """A pointer that tells the builder what function it points to."""

    def __init__(self, function: ir.FunctionType):
        super().__init__()
        self.pointee = function


class Variable:
    """A value that loops change; LLVM keeps it in a register."""

    def __init__(self, emitter: Emitter, kind: ir.Type, initial: ir.Value):
        self._emitter, self._kind = emitter, kind
        with emitter.builder.goto_entry_block():
            self._slot = emitter.builder.alloca(kind)
        self.set(initial)

    def set(self, value: ir.Value) -> None:
        self._emitter.builder.store(value, self._slot)

    def get(self) -> ir.Value:
        return self._emitter.builder.load(self._slot, typ=self._kind)


class Emitter:
    """One function under construction. `arguments` are its parameters, in their order."""

    def __init__(self, module: ir.Module, name: str, parameters: Sequence[ir.Type]):
        self.module = module
        self._features = module.features
        self.function = ir.Function(module, ir.FunctionType(VOID, parameters), name)
        self.function.attributes.add("nounwind")
        self.arguments = self.function.args
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        # loops start in a block of their own, so that variables' slots can go before them
        body = self.function.append_basic_block("body")
        self.builder.branch(body)
        self.builder.position_at_end(body)

    def has(self, feature: str) -> bool:
        """Whether the processor has it, by LLVM's name."""
        return feature in self._features

    # numbers

    def int(self, value: int, kind: ir.Type = I64) -> ir.Constant:
        return ir.Constant(kind, value)

    def float(self, value: float, width: int = 1) -> ir.Constant:
        return ir.Constant(F32, value) if width == 1 else ir.Constant(vector(F32, width), [value] * width)

    def ints(self, value: int, width: int, kind: ir.Type) -> ir.Constant:
        return ir.Constant(vector(kind, width), [value] * width if width > 1 else value)

    def add(self, a: ir.Value, b: ir.Value | int) -> ir.Value:
        return self.builder.add(a, self._whole(b, a.type))

    def sub(self, a: ir.Value, b: ir.Value | int) -> ir.Value:
        return self.builder.sub(a, self._whole(b, a.type))

    def mul(self, a: ir.Value, b: ir.Value | int) -> ir.Value:
        return self.builder.mul(a, self._whole(b, a.type))

    def div(self, a: ir.Value, b: ir.Value | int) -> ir.Value:
        return self.builder.udiv(a, self._whole(b, a.type))

    def _whole(self, value: ir.Value | int, kind: ir.Type) -> ir.Value:
        return ir.Constant(kind, value) if isinstance(value, int) else value

    def min(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.icmp_unsigned("<", a, b), a, b)

    def max(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.icmp_unsigned(">", a, b), a, b)

    # control

    @contextmanager
    def loop(self, start: ir.Value | int, end: ir.Value | int, step: ir.Value | int = 1) -> Iterator[ir.Value]:
        """The body runs for start, start + step, … below end."""
        b, f = self.builder, self.function
        start, end = self._whole(start, I64), self._whole(end, I64)
        before = b.block
        head, body, after = (f.append_basic_block(part) for part in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64)
        index.add_incoming(start, before)
        b.cbranch(b.icmp_unsigned("<", index, end), body, after)
        b.position_at_end(body)
        yield index
        index.add_incoming(self.add(index, step), b.block)
        b.branch(head)
        b.position_at_end(after)

    def when(self, condition: ir.Value):
        """The body runs if the condition holds."""
        return self.builder.if_then(condition)

    def is_set(self, value: ir.Value) -> ir.Value:
        return self.builder.icmp_unsigned("!=", value, ir.Constant(value.type, 0))

    def equal(self, a: ir.Value, b: ir.Value | int) -> ir.Value:
        return self.builder.icmp_unsigned("==", a, self._whole(b, a.type))

    def call(self, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
        """Call a function or an intrinsic of LLVM by its name."""
        found = self.module.globals.get(name)
        if found is None:
            found = ir.Function(self.module, ir.FunctionType(result, [a.type for a in arguments]), name)
        return self.builder.call(found, arguments)

    def call_address(self, address: ir.Value, *arguments: ir.Value) -> None:
        """Call what lies at an address."""
        kind = _FunctionPointer(ir.FunctionType(VOID, [a.type for a in arguments]))
        self.builder.call(self.builder.inttoptr(address, kind), arguments)

    # memory: an address is a 64-bit integer, counted in bytes

    def load(self, address: ir.Value, kind: ir.Type, align: int = 1) -> ir.Value:
        return self.builder.load(self.builder.inttoptr(address, POINTER), typ=kind, align=align)

    def store(self, value: ir.Value, address: ir.Value, align: int = 1) -> None:
        self.builder.store(value, self.builder.inttoptr(address, POINTER), align=align)

    def at(self, base: ir.Value, index: ir.Value | int, item_bytes: int) -> ir.Value:
        """The address of an item of an array."""
        return self.add(base, self.mul(self._whole(index, I64), item_bytes))

    def prefetch(self, address: ir.Value) -> None:
        """Ask for a cache line that will be read soon."""
        for_reading, keep, data = self.int(0, I32), self.int(3, I32), self.int(1, I32)
        pointer = self.builder.inttoptr(address, POINTER)
        self.call("llvm.prefetch.p0", VOID, pointer, for_reading, keep, data)

    def reserve(self, n_bytes: int) -> ir.Value:
        """The address of memory of the function's own."""
        with self.builder.goto_entry_block():
            slot = self.builder.alloca(ir.ArrayType(I8, n_bytes))
            slot.align = 64
            return self.builder.ptrtoint(slot, I64)

    def load_floats(self, base: ir.Value, index: ir.Value, width: int) -> ir.Value:
        return self.load(self.at(base, index, 4), vector(F32, width), align=4)

    def store_floats(self, value: ir.Value, base: ir.Value, index: ir.Value) -> None:
        self.store(value, self.at(base, index, 4), align=4)

    # vectors of fp32

    def splat(self, value: ir.Value, width: int) -> ir.Value:
        if width == 1:
            return value
        kind = vector(value.type, width)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, self.int(0, I32))
        return self.builder.shuffle_vector(
            first, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(I32, width), [0] * width)
        )

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a * b + c, in one rounding where the processor has it"""
        return self.call(f"llvm.fmuladd.{_suffix(a.type)}", a.type, a, b, c)

    def fmax(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The larger one; b if one of them is no number."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def maximum(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The larger one; no number if one of them is none."""
        return self.call(f"llvm.maximum.{_suffix(a.type)}", a.type, a, b)

    def fabs(self, a: ir.Value) -> ir.Value:
        return self.call(f"llvm.fabs.{_suffix(a.type)}", a.type, a)

    def rint(self, a: ir.Value) -> ir.Value:
        """To the nearest whole number, ties to even."""
        return self.call(f"llvm.rint.{_suffix(a.type)}", a.type, a)

    def fsqrt(self, a: ir.Value) -> ir.Value:
        return self.call(f"llvm.sqrt.{_suffix(a.type)}", a.type, a)

    def sum_lanes(self, value: ir.Value) -> ir.Value:
        """By halves, in an order that is the same on every call."""
        is_float = getattr(value.type, "element", value.type) == F32
        return self._fold(value, self.builder.fadd if is_float else self.builder.add)

    def max_lanes(self, value: ir.Value, combine: Callable | None = None) -> ir.Value:
        return self._fold(value, combine or self.fmax)

    def _fold(self, value: ir.Value, combine) -> ir.Value:
        if not isinstance(value.type, ir.VectorType):
            return value
        width = value.type.count
        while width > 1:
            width //= 2
            halves = [
                self.builder.shuffle_vector(
                    value,
                    ir.Constant(value.type, ir.Undefined),
                    ir.Constant(ir.VectorType(I32, width), list(range(start, start + width))),
                )
                for start in (0, width)
            ]
            value = combine(*halves)
        return self.builder.extract_element(value, self.int(0, I32))

    def exp(self, x: ir.Value) -> ir.Value:
        """e to the power of x, for x up to 0 or a little above: relative error about 2e-7.

        2^(n + r) with n whole and |r| at most a half: n goes into the exponent, r into a polynomial (the
        Taylor series of 2^r, whose terms beyond r^7 are below fp32's precision).
        """
        b, width = self.builder, getattr(x.type, "count", 1)
        least = self.float(-87.0, width)
        x = b.select(b.fcmp_ordered("<", x, least), least, x)  # what is no number stays none
        scaled = b.fmul(x, self.float(1.4426950408889634, width))
        whole = self.rint(scaled)
        # x - n ln 2 in two parts, so that nothing is lost
        rest = self.fma(whole, self.float(-0.693145751953125, width), x)
        rest = self.fma(whole, self.float(-1.428606765330187e-06, width), rest)
        result = self.float(1 / 5040, width)
        for divisor in (720, 120, 24, 6, 2, 1, 1):
            result = self.fma(result, rest, self.float(1 / divisor, width))
        exponent = b.add(b.fptosi(whole, vector(I32, width)), self.ints(127, width, I32))
        power = b.bitcast(b.shl(exponent, self.ints(23, width, I32)), x.type)
        return b.fmul(result, power)

    def finish(self) -> None:
        self.builder.ret_void()


def _suffix(kind: ir.Type) -> str:
    return f"v{kind.count}f32" if isinstance(kind, ir.VectorType) else "f32"
