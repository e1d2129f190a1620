"""Block formats, bit by bit against gguf-py; products against those of the exact weights."""

from __future__ import annotations

import contextlib

import gguf
import numpy as np
import pytest
import torch

from llm_magic.engine.linear import Groups, make_linear, make_part
from llm_magic.engine.vocabulary import Embedding
from llm_magic.weights.gguf import read_gguf
from llm_magic.weights.quants import read_tensor

TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
CPU = torch.device("cpu")


def write_gguf(path, arrays, types):
    writer = gguf.GGUFWriter(path, "llama")
    for (name, array), kind in zip(arrays.items(), types, strict=True):
        kind = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, quantise(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quantise(array, kind):
    """By gguf-py; what it only reads, the K formats, as random codes with fp16 scales that are numbers."""
    with contextlib.suppress(NotImplementedError):
        return gguf.quants.quantize(array, kind)
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(2).integers(0, 256, (array.size // block_size, block_bytes), dtype=np.uint8)
    halves = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}[kind.name]
    for start in halves:
        scale = np.random.default_rng(start).uniform(-0.01, 0.01, len(blocks)).astype(np.float16)
        blocks[:, start : start + 2] = scale[:, None].view(np.uint8)
    return blocks.reshape(array.shape[0], -1)


@pytest.mark.parametrize("kind", TYPES)
def test_a_tensor_is_read_bit_by_bit_as_gguf_py_reads_it(tmp_path, kind):
    array = np.random.default_rng(0).standard_normal((48, 512), dtype=np.float32)
    file = read_gguf(write_gguf(tmp_path / "t.gguf", {"w": array}, [kind]))
    ours = read_tensor(file, file.tensors["w"])
    ours = ours.to_dense() if isinstance(ours, Groups) else ours.float()
    reader = gguf.GGUFReader(tmp_path / "t.gguf")
    theirs = gguf.quants.dequantize(reader.tensors[0].data, reader.tensors[0].tensor_type)
    assert np.array_equal(ours.numpy().view(np.uint32), theirs.astype(np.float32).view(np.uint32))  # gguf-py, bits


def random_groups(kind: str, n: int, k: int, tmp_path) -> Groups:
    array = np.random.default_rng(1).standard_normal((n, k), dtype=np.float32) * 0.05
    file = read_gguf(write_gguf(tmp_path / f"{kind}.gguf", {"w": array}, [kind]))
    return read_tensor(file, file.tensors["w"])


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("rows", [1, 4, 7, 40])
def test_a_product_is_that_of_the_exact_weights(tmp_path, kind, rows):
    groups = random_groups(kind, 96, 256, tmp_path)
    x = torch.randn(rows, 256, generator=torch.Generator().manual_seed(0))
    bias = torch.randn(96, generator=torch.Generator().manual_seed(1))
    dense = groups.to_dense() if isinstance(groups, Groups) else groups.float()
    exact = x.double() @ dense.double().T + bias
    found = make_linear([groups], [bias], CPU)(x)
    assert ((found - exact).abs().max() / exact.abs().max()) < 5e-5  # fp64; activations have 16 bits


def test_parts_of_unlike_formats_are_joined(tmp_path):
    parts = [random_groups(kind, n, 256, tmp_path) for kind, n in (("Q4_0", 33), ("Q8_0", 64), ("F16", 5))]
    linear, x = make_linear(parts, [None] * 3, CPU), torch.randn(2, 256)
    dense = torch.cat([part.to_dense() if isinstance(part, Groups) else part.float() for part in parts])
    assert linear.shape == (102, 256)
    torch.testing.assert_close(linear(x), x @ dense.T, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", TYPES)
def test_rows_come_back_from_a_packed_matrix_bit_by_bit(tmp_path, kind):
    weight = random_groups(kind, 70, 256, tmp_path)
    dense = weight.to_dense() if isinstance(weight, Groups) else weight.float()
    part, ids = make_part(weight, None, CPU), torch.tensor([[3, 69], [0, 3]])
    assert torch.equal(Embedding(part)(ids), dense[ids])
    assert torch.equal(part.to_dense(), dense) and torch.equal(part.to_dense(5, 9), dense[5:9])


def test_without_kernels_the_products_are_pytorchs(tmp_path, monkeypatch):
    monkeypatch.setattr("llm_magic.engine.linear.machine", lambda: None)
    groups, x = random_groups("Q4_1", 64, 128, tmp_path), torch.randn(3, 128)
    linear = make_linear([groups, groups], [None, None], CPU)
    assert linear.kernels is None
    expected = torch.cat([x @ groups.to_dense().T] * 2, dim=-1)
    torch.testing.assert_close(linear(x), expected, atol=0.03, rtol=0.03)  # bf16
