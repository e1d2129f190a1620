"""The GGUF reader: equal to gguf-py on sound files, one clear error on all others, quick on large vocabularies."""

from __future__ import annotations

import random
import struct
import time

import gguf
import numpy as np
import pytest

from llm_magic.errors import ModelFileError
from llm_magic.weights.gguf import read_gguf


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "sound.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("llama.rope.freq_base", 1e5)
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    writer.add_array("tokenizer.ggml.tokens", ["a", "é", "日本", ""])
    writer.add_array("tokenizer.ggml.token_type", [1, 3, 1, 1])
    writer.add_tensor("token_embd.weight", np.arange(128, dtype=np.float32).reshape(4, 32))
    writer.add_tensor("output_norm.weight", np.ones(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def assert_same_as_gguf_py(path):
    ours, theirs = read_gguf(path), gguf.GGUFReader(path)
    fields = {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert ours.metadata == fields
    assert list(ours.tensors) == [t.name for t in theirs.tensors]
    for tensor in theirs.tensors:
        entry = ours.tensors[tensor.name]
        assert entry.shape == tuple(int(n) for n in reversed(tensor.shape))
        assert (entry.start, entry.n_bytes) == (tensor.data_offset, tensor.n_bytes)
        assert bytes(ours.bytes_of(entry)[:64]) == tensor.data.tobytes()[:64]


def test_a_file_is_read_as_gguf_py_reads_it(sound):
    assert_same_as_gguf_py(sound)


def test_the_real_file_is_read_as_gguf_py_reads_it(real_path):
    assert_same_as_gguf_py(real_path)


def header(n_tensors=0, n_metadata=0, body=b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_metadata) + body


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def tensor(name=b"t", dims=(32,), kind=0, offset=0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


HOSTILE = {
    "empty": (b"", "is empty"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>" + b" " * 64, "is a web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n" + b" " * 64, "Git LFS pointer"),
    "zip": (b"PK\x03\x04" + b"\0" * 64, "no GGUF file"),
    "cut in the header": (b"GGUF\x03\0\0\0", "inside its header"),
    "version 9": (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 9"),
    "many tensors": (header(n_tensors=2**60), "claims"),
    "many entries": (header(n_metadata=2**63), "claims"),
    "long string": (header(0, 1, text(b"k") + struct.pack("<IQ", 8, 2**62)), "claims"),
    "long array": (header(0, 1, text(b"k") + struct.pack("<IIQ", 9, 4, 10**9)), "claims"),
    "many strings": (header(0, 1, text(b"k") + struct.pack("<IIQ", 9, 8, 10**9)), "claims"),
    "nested array": (header(0, 1, text(b"k") + struct.pack("<IIQ", 9, 9, 1) + b"\0" * 32), "array of the type 9"),
    "unknown type": (header(0, 1, text(b"k") + struct.pack("<I", 77) + b"\0" * 32), "unknown type 77"),
    "key twice": (header(0, 2, 2 * (text(b"k") + struct.pack("<IB", 0, 1))), "stands twice"),
    "no dimension": (header(1, 0, tensor(dims=()) + b"\0" * 64), "0 dimensions"),
    "five dimensions": (header(1, 0, tensor(dims=(1,) * 5) + b"\0" * 64), "5 dimensions"),
    "overflowing shape": (header(1, 0, tensor(dims=(2**40, 2**40)) + b"\0" * 64), "has the shape"),
    "zero rows": (header(1, 0, tensor(dims=(32, 0)) + b"\0" * 64), "has the shape"),
    "ragged block": (header(1, 0, tensor(dims=(33,), kind=2) + b"\0" * 64), "has the shape"),
    "unknown format": (header(1, 0, tensor(kind=99) + b"\0" * 200), "format 99"),
    "crooked offset": (header(1, 0, tensor(offset=7) + b"\0" * 300), "no multiple of 32"),
    "beyond the end": (header(1, 0, tensor(offset=2**40) + b"\0" * 64), "is incomplete"),
    "overlap": (header(2, 0, tensor(b"a") + tensor(b"b") + b"\0" * 400), "overlap"),
    "tensor twice": (header(2, 0, tensor(b"a") + tensor(b"a") + b"\0" * 400), "stands twice"),
    "huge alignment": (
        header(0, 1, text(b"general.alignment") + struct.pack("<II", 4, 2**31) + b"\0" * 32),
        "alignment is 2147483648",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_unsound_file_is_one_clear_error(tmp_path, name):
    content, message = HOSTILE[name]
    (tmp_path / "model.gguf").write_bytes(content)
    started = time.perf_counter()
    with pytest.raises(ModelFileError, match=message) as caught:
        read_gguf(tmp_path / "model.gguf")
    assert time.perf_counter() - started < 0.5
    assert "\n" not in str(caught.value)


def test_a_truncated_file_tells_both_sizes(sound, tmp_path):
    whole = sound.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:-100])
    with pytest.raises(ModelFileError, match=f"{len(whole) - 100:,} of .* bytes are there"):
        read_gguf(tmp_path / "cut.gguf")


def test_mutated_files_never_hang_or_crash(sound, tmp_path):
    whole, rng, path = sound.read_bytes(), random.Random(0), tmp_path / "m.gguf"
    started = time.perf_counter()
    for _ in range(1500):
        mutant = bytearray(whole[: rng.randrange(1, len(whole))] if rng.random() < 0.2 else whole)
        for _ in range(rng.randrange(1, 9)):
            mutant[rng.randrange(len(mutant))] = rng.choice((0, 1, 255, rng.randrange(256)))
        path.write_bytes(mutant)
        try:
            read_gguf(path)
        except ModelFileError:
            pass
    assert time.perf_counter() - started < 20


def test_a_vocabulary_of_128k_is_read_in_half_a_second(tmp_path):
    tokens = b"".join(text(b"tok%06d" % i) for i in range(128_256))
    merges = b"".join(text(b"to k%06d" % i) for i in range(280_147))
    body = b"".join(
        text(key) + struct.pack("<IIQ", 9, 8, n) + strings
        for key, n, strings in (
            (b"tokenizer.ggml.tokens", 128_256, tokens),
            (b"tokenizer.ggml.merges", 280_147, merges),
        )
    )
    (tmp_path / "large.gguf").write_bytes(header(0, 2, body))
    started = time.perf_counter()
    file = read_gguf(tmp_path / "large.gguf")
    elapsed_s = time.perf_counter() - started
    assert file.metadata["tokenizer.ggml.merges"][-1] == "to k280146"
    assert elapsed_s < 0.5
