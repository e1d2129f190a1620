"""How kernels are called: the words of a call's parameters, and the prepared activations that products read.

A kernel gets four numbers: the address of the call's parameters, that of its instruction, and which of how many
threads it runs on. Parameters and instructions are 64-bit words; an instruction begins with its kernel's address.
"""

from __future__ import annotations

from llvmlite import ir

from llm_magic.engine.native.emit import F32, I32, I64, Emitter

# words of a call's parameters
(
    PROGRAM, N_INSTRUCTIONS, N_THREADS, SCRATCH, PREPARED, PREPARED_BYTES, N_ROWS, N_TOKENS, POSITIONS, ROTATIONS,
    CACHE, LAYER_BYTES, ROW_BYTES, HEAD_BYTES, HEADS_AT_ONCE, PARTIALS,
) = range(16)  # fmt: skip
N_PARAMETERS = 16
INSTRUCTION_WORDS = 16

TILE_ROWS = 32  # rows of a packed matrix that lie together
INPUT_GROUP = 32  # inputs that share a scale; K is padded to it
GRANULE = 16  # inputs whose sum is kept ready; group sizes are multiples of it
CACHE_LINE_BYTES = 64


def round_up(n: int, multiple: int) -> int:
    """The next multiple, from n on.

    >>> round_up(65, 64), round_up(64, 64)
    (128, 64)
    """
    return -(-n // multiple) * multiple


class Operands:
    """Where a kernel finds what it works on: a call's parameters, an instruction, which of the threads it is."""

    def __init__(self, e: Emitter):
        self.e = e
        self.parameters, self.instruction, self.thread, self.n_threads = e.arguments

    def parameter(self, word: int) -> ir.Value:
        return self.e.load(self.e.at(self.parameters, word, 8), I64, align=8)

    def word(self, word: int) -> ir.Value:
        return self.e.load(self.e.at(self.instruction, word, 8), I64, align=8)

    def share(self, n: ir.Value) -> tuple[ir.Value, ir.Value]:
        """This thread's part of n items: start and end."""
        e = self.e
        start = e.div(e.mul(n, self.thread), self.n_threads)
        return start, e.div(e.mul(n, e.add(self.thread, 1)), self.n_threads)

    def share_tiles(self, n: ir.Value) -> tuple[ir.Value, ir.Value]:
        """This thread's part of n rows of a matrix, by whole tiles."""
        e = self.e
        start, end = self.share(e.div(e.add(n, TILE_ROWS - 1), TILE_ROWS))
        return e.mul(start, TILE_ROWS), e.min(e.mul(end, TILE_ROWS), n)

    def inputs(self, k: ir.Value, at_once: int) -> Inputs:
        """Prepared activations: one copy for all threads, or (a lone row) one for each."""
        e = self.e
        base = e.add(self.parameter(PREPARED), e.mul(self.thread, self.parameter(PREPARED_BYTES)))
        return Inputs(e, base, k, self.parameter(N_ROWS), at_once)


class Inputs:
    """Prepared activations of all rows: fp32, row after row; and, interleaved in blocks of as many rows as a kernel
    takes at once, pairs of 16-bit numbers, their scales, sums of GRANULE inputs as whole numbers and as fp32.
    """

    def __init__(self, e: Emitter, base: ir.Value, k: ir.Value, n_rows: ir.Value, at_once: int):
        self.e, self.k, self.at_once = e, k, at_once
        sizes = {"floats": e.mul(k, 4), "pairs": e.mul(k, 2), "scales": e.div(k, INPUT_GROUP // 4)}
        sizes |= dict.fromkeys(("code_sums", "sums"), e.div(k, GRANULE // 4))
        self._starts = {}
        for name, row_bytes in sizes.items():
            self._starts[name] = base, row_bytes
            base = e.add(base, e.mul(n_rows, row_bytes))

    def floats(self, row: ir.Value) -> ir.Value:
        """The address of a row's fp32 numbers."""
        start, row_bytes = self._starts["floats"]
        return self.e.add(start, self.e.mul(row, row_bytes))

    def block(self, name: str, first_row: ir.Value) -> ir.Value:
        """The address of a block of rows; in it, item i of row r is number `at_once` i + r, of 4 bytes."""
        start, row_bytes = self._starts[name]
        return self.e.add(start, self.e.mul(first_row, row_bytes))

    def item(self, block: ir.Value, index: ir.Value, row: int | ir.Value) -> ir.Value:
        """The address of an item of a block's row."""
        e = self.e
        return e.add(e.at(block, index, 4 * self.at_once), row * 4 if isinstance(row, int) else e.mul(row, 4))


def prepared_bytes(k: int, rows: int) -> int:
    """What `Inputs` of `rows` rows of K numbers, padded, take."""
    return rows * (6 * k + k // 8 + 2 * (k // 4))


def float_word(e: Emitter, word: ir.Value) -> ir.Value:
    """An fp32 number that lies in a word's low half."""
    return e.builder.bitcast(e.builder.trunc(word, I32), F32)
