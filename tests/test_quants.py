"""Block formats, bit by bit against gguf-py; the packed products against the dense ones."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from llm_magic.engine.linear import Dense, Groups, Packed, Stacked, has_packed_kernel, make_linear
from llm_magic.engine.vocabulary import BEST_ROWS, Embedding, make_head
from llm_magic.weights.gguf import read_gguf
from llm_magic.weights.quants import read_tensor

TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0"]
CPU = torch.device("cpu")
needs_kernel = pytest.mark.skipif(not has_packed_kernel(CPU), reason="this processor has no packed kernel in PyTorch")


def write_gguf(path, arrays, types):
    writer = gguf.GGUFWriter(path, "llama")
    for (name, array), kind in zip(arrays.items(), types, strict=True):
        kind = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", TYPES)
def test_a_tensor_is_read_bit_by_bit_as_gguf_py_reads_it(tmp_path, kind):
    array = np.random.default_rng(0).standard_normal((48, 128), dtype=np.float32)
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


@needs_kernel
@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
@pytest.mark.parametrize("rows", [1, 4, 7])
def test_a_packed_product_equals_the_dense_one(tmp_path, kind, rows):
    groups = random_groups(kind, 96, 256, tmp_path)
    x = torch.randn(rows, 256, generator=torch.Generator().manual_seed(0)).bfloat16()
    bias = torch.randn(96, generator=torch.Generator().manual_seed(1))
    exact = x.float() @ groups.to_dense().T + bias
    packed = Packed(groups, bias, dense=None)(x).float()
    # fp32 product of the exact weights; bf16 rounds scales and the result to 8 bits
    torch.testing.assert_close(packed, exact, atol=0.02, rtol=0.02)


@needs_kernel
def test_many_rows_use_the_dense_copy(tmp_path):
    groups = random_groups("Q4_1", 64, 128, tmp_path)
    linear = make_linear([groups], [None], CPU, keep_dense=True)
    x = torch.randn(64, 128)
    assert isinstance(linear, Packed)
    torch.testing.assert_close(linear(x).float(), x.bfloat16().float() @ groups.to_dense().T, atol=0.03, rtol=0.02)


@pytest.mark.parametrize("n", [67, 32])
def test_a_matrix_that_the_kernel_does_not_take_is_dense(tmp_path, n):
    groups, x = random_groups("Q8_0", n, 128, tmp_path), torch.randn(2, 128)
    linear = make_linear([groups], [None], CPU, keep_dense=False)
    assert isinstance(linear, Dense) == (n == 67 or not has_packed_kernel(CPU))
    torch.testing.assert_close(linear(x).float(), x @ groups.to_dense().T, atol=0.03, rtol=0.03)


def test_parts_of_unlike_formats_are_joined(tmp_path):
    four, eight = random_groups("Q4_0", 32, 128, tmp_path), random_groups("Q8_0", 64, 128, tmp_path)
    linear = make_linear([four, eight], [None, None], CPU, keep_dense=True)
    x = torch.randn(2, 128)
    exact = torch.cat([x @ four.to_dense().T, x @ eight.to_dense().T], dim=-1)
    assert linear.shape == (96, 128) and isinstance(linear, (Stacked, Dense))
    torch.testing.assert_close(linear(x).float(), exact, atol=0.03, rtol=0.03)


def test_a_grouped_embedding_gives_exact_rows(tmp_path):
    groups = random_groups("Q8_0", 64, 128, tmp_path)
    ids = torch.tensor([[3, 63], [0, 3]])
    assert torch.equal(Embedding(groups)(ids), groups.to_dense()[ids])


@needs_kernel
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "BF16"])
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_a_head_is_exact_where_it_counts_and_close_elsewhere(tmp_path, kind, rows):
    weight = random_groups(kind, 9000, 128, tmp_path)
    dense = weight.to_dense() if isinstance(weight, Groups) else weight.float()
    x = torch.randn(rows, 128, generator=torch.Generator().manual_seed(0))
    logits, exact = make_head(weight, CPU)(x).all, x @ dense.T
    best = exact.topk(BEST_ROWS // 2).indices  # fp32 product of the exact weights
    torch.testing.assert_close(logits.gather(1, best), exact.gather(1, best), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, exact, atol=0.05, rtol=0.02)
