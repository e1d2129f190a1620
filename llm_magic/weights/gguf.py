"""A reader of GGUF files: maps the file, and checks every count and offset before it trusts it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from llm_magic.errors import ModelFileError

MAX_ALIGNMENT = 1 << 16
MAX_DIMENSIONS = 4
FETCH_AGAIN = "fetch the file again"


@dataclass(frozen=True, slots=True)
class BlockType:
    """How a tensor type stores its values: `block_bytes` for each `block_size` values of a row."""

    name: str
    block_size: int
    block_bytes: int


TYPES = {
    0: BlockType("F32", 1, 4),
    1: BlockType("F16", 1, 2),
    2: BlockType("Q4_0", 32, 18),
    3: BlockType("Q4_1", 32, 20),
    6: BlockType("Q5_0", 32, 22),
    7: BlockType("Q5_1", 32, 24),
    8: BlockType("Q8_0", 32, 34),
    9: BlockType("Q8_1", 32, 36),
    10: BlockType("Q2_K", 256, 84),
    11: BlockType("Q3_K", 256, 110),
    12: BlockType("Q4_K", 256, 144),
    13: BlockType("Q5_K", 256, 176),
    14: BlockType("Q6_K", 256, 210),
    15: BlockType("Q8_K", 256, 292),
    24: BlockType("I8", 1, 1),
    25: BlockType("I16", 1, 2),
    26: BlockType("I32", 1, 4),
    27: BlockType("I64", 1, 8),
    28: BlockType("F64", 1, 8),
    30: BlockType("BF16", 1, 2),
}
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_SCALARS = {kind: struct.Struct(form) for kind, form in _SCALARS.items()}
_STRING, _ARRAY = 8, 9
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies in the file. `shape` is as torch has it: rows first, (N, K)."""

    name: str
    shape: tuple[int, ...]
    type: BlockType
    start: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """A mapped file: its metadata, and where its tensors lie in `data`."""

    path: Path
    metadata: dict[str, object]
    tensors: dict[str, TensorEntry]
    data: mmap.mmap

    def bytes_of(self, entry: TensorEntry) -> memoryview:
        """The tensor's blocks, not copied."""
        return memoryview(self.data)[entry.start : entry.start + entry.n_bytes]


def read_gguf(path: Path) -> GGUFFile:
    """Read the header of a GGUF file and map the rest. Raises `ModelFileError` for anything unsound."""
    path = Path(path)
    try:
        file = open(path, "rb")
    except OSError as error:
        raise ModelFileError(f"{path} cannot be opened ({error.strerror})", "check the path and its rights") from None
    with file:
        size = os.fstat(file.fileno()).st_size
        _check_magic(path, file.read(64), size)
        # a private mapping: torch wants writable memory, and nothing is ever written to the file
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    try:
        metadata, tensors = _Header(path, data, size).read()
    except BaseException:
        data.close()
        raise
    return GGUFFile(path, metadata, tensors, data)


def _check_magic(path: Path, head: bytes, size: int) -> None:
    if head[:4] == b"GGUF" and size >= 24:
        return
    text = head.lstrip().lower()
    if size == 0:
        problem = f"{path} is empty"
    elif head[:4] == b"GGUF":
        problem = f"{path} ends after {size} bytes, inside its header"
    elif text.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        problem = f"{path} is a web page, not a model: the download was answered with HTML"
    elif text.startswith(b"version https://git-lfs"):
        problem = f"{path} is a Git LFS pointer, not the model it points to"
    elif head[:4] in (b"FUGG",):
        problem = f"{path} is a big-endian GGUF file, which is not read"
    else:
        problem = f"{path} is no GGUF file: it begins with {head[:4]!r}"
    raise ModelFileError(problem, FETCH_AGAIN)


class _Header:
    """A cursor over the header; every read is checked against the file's end."""

    def __init__(self, path: Path, data: mmap.mmap, size: int):
        self.path, self.data, self.size, self.position = path, data, size, 4

    def fail(self, problem: str) -> ModelFileError:
        return ModelFileError(f"{self.path} is damaged: {problem}", FETCH_AGAIN)

    def take(self, form: struct.Struct):
        if self.position + form.size > self.size:
            raise self.fail(f"its header runs past the file's end at byte {self.size:,}")
        (value,) = form.unpack_from(self.data, self.position)
        self.position += form.size
        return value

    def take_string(self, what: str) -> str:
        length = self.take(_U64)
        if length > self.size - self.position:
            raise self.fail(f"{what} claims {length:,} bytes and {self.size - self.position:,} are left")
        start, self.position = self.position, self.position + length
        return self.data[start : self.position].decode("utf-8", errors="replace")

    def take_strings(self, count: int, what: str) -> list[str]:
        # the hot loop: a vocabulary has some 400,000 strings, so locals instead of methods
        data, size, position, unpack = self.data, self.size, self.position, _U64.unpack_from
        strings = []
        for _ in range(count):
            start = position + 8
            if start > size:
                raise self.fail(f"{what} runs past the file's end")
            position = start + unpack(data, position)[0]
            if position > size:
                raise self.fail(f"a string in {what} runs past the file's end")
            strings.append(data[start:position].decode("utf-8", "replace"))
        self.position = position
        return strings

    def take_value(self, kind: int, what: str):
        if kind in _SCALARS:
            return self.take(_SCALARS[kind])
        if kind == _STRING:
            return self.take_string(what)
        if kind != _ARRAY:
            raise self.fail(f"{what} has the unknown type {kind}")
        item_kind, count = self.take(_U32), self.take(_U64)
        least_bytes = 8 if item_kind == _STRING else _SCALARS[item_kind].size if item_kind in _SCALARS else 0
        if not least_bytes:
            raise self.fail(f"{what} is an array of the type {item_kind}, which no model uses")
        if count * least_bytes > self.size - self.position:
            raise self.fail(f"{what} claims {count:,} items and {self.size - self.position:,} bytes are left")
        if item_kind == _STRING:
            return self.take_strings(count, what)
        form = struct.Struct(f"<{count}{_SCALARS[item_kind].format[1:]}")
        values = list(form.unpack_from(self.data, self.position))
        self.position += form.size
        return values

    def read(self) -> tuple[dict[str, object], dict[str, TensorEntry]]:
        version = self.take(_U32)
        if version not in (2, 3):
            raise ModelFileError(
                f"{self.path} is GGUF of version {version}, and versions 2 and 3 are read", "convert the file anew"
            )
        n_tensors, n_metadata = self.take(_U64), self.take(_U64)
        left = self.size - self.position
        if n_tensors * 32 > left or n_metadata * 13 > left:  # the least bytes that each entry takes
            raise self.fail(f"it claims {n_tensors:,} tensors and {n_metadata:,} metadata entries in {left:,} bytes")
        metadata: dict[str, object] = {}
        for _ in range(n_metadata):
            key = self.take_string("a metadata key")
            if key in metadata:
                raise self.fail(f"the key {key!r} stands twice")
            metadata[key] = self.take_value(self.take(_U32), f"the value of {key!r}")
        entries = [self.take_entry() for _ in range(n_tensors)]
        return metadata, self.place(entries, metadata.get("general.alignment", 32))

    def take_entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.take_string("a tensor's name")
        n_dimensions = self.take(_U32)
        if not 1 <= n_dimensions <= MAX_DIMENSIONS:
            raise self.fail(f"tensor {name!r} has {n_dimensions} dimensions")
        shape = tuple(self.take(_U64) for _ in range(n_dimensions))[::-1]
        return name, shape, self.take(_U32), self.take(_U64)

    def place(self, entries, alignment: object) -> dict[str, TensorEntry]:
        """Tensors with their bounds checked: aligned, inside the file, none over another."""
        is_power = isinstance(alignment, int) and alignment >= 1 and alignment & (alignment - 1) == 0
        if not is_power or alignment > MAX_ALIGNMENT:
            raise self.fail(f"its alignment is {alignment!r}")
        data_start = -(-self.position // alignment) * alignment
        tensors: dict[str, TensorEntry] = {}
        for name, shape, kind, offset in entries:
            if name in tensors:
                raise self.fail(f"the tensor {name!r} stands twice")
            if kind not in TYPES:
                supported = ", ".join(block.name for block in TYPES.values() if block.name[0] in "FBQ")
                raise ModelFileError(
                    f"{self.path} has tensor {name!r} in the format {kind}, which is not read",
                    f"use a file in one of {supported}",
                )
            block, values = TYPES[kind], 1
            for n in shape:
                values *= n
            if min(shape) < 1 or values >= 1 << 48 or shape[-1] % block.block_size:
                raise self.fail(f"tensor {name!r} has the shape {shape}")
            n_bytes = values // block.block_size * block.block_bytes
            start = data_start + offset
            if offset % alignment:
                raise self.fail(f"tensor {name!r} lies at {offset:,}, no multiple of {alignment}")
            tensors[name] = TensorEntry(name, shape, block, start, n_bytes)
        end, last = data_start, ""
        for entry in sorted(tensors.values(), key=lambda e: e.start):
            if entry.start < end:
                raise self.fail(f"tensors {last!r} and {entry.name!r} overlap")
            end, last = entry.start + entry.n_bytes, entry.name
        if tensors and end > self.size:
            raise ModelFileError(f"{self.path} is incomplete: {self.size:,} of {end:,} bytes are there", FETCH_AGAIN)
        return tensors
