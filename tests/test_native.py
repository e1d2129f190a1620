"""Machine code, for this processor and as older ones would get it, against fp64 and PyTorch."""

from __future__ import annotations

import os

import pytest
import torch

from llm_magic.engine.native import matrix as native
from llm_magic.engine.native.machine import Machine, machine

AVX512 = frozenset({name for name in machine()._features if name.startswith("avx512")})
PROCESSORS = {"this": frozenset(), "AVX2": AVX512, "AVX": AVX512 | {"avx2", "fma", "avxvnni"}}


@pytest.fixture(scope="module", params=PROCESSORS, ids=list(PROCESSORS))
def kernels(request, tmp_path_factory) -> Machine:
    return Machine(tmp_path_factory.mktemp("kernels"), PROCESSORS[request.param])


def random_factors(n, n_groups, dtype, generator):
    """Of each group; of int8, with fp16 factors of 256 inputs (in these tests, of all)."""
    if dtype == torch.int8:
        values = torch.randint(-64, 64, (n, n_groups), dtype=dtype, generator=generator)
        return native.Factors(values, (torch.randn(n, 1, generator=generator) * 0.01).half())
    return native.Factors((torch.randn(n, n_groups, generator=generator) * 0.1).to(dtype))


def random_matrix(n, k, bits, group_size, *, dtype=torch.float16, has_offset=False, is_signed=False):
    """A packed matrix, and the same in fp64."""
    generator = torch.Generator().manual_seed(n + k + bits)
    low, high = (-128, 128) if bits == 8 else (-8, 8) if is_signed else (0, 16)
    kind = torch.int8 if low else torch.uint8
    codes = torch.randint(low, high, (n, k), dtype=kind, generator=generator)
    scale = random_factors(n, k // group_size, dtype, generator)
    offset = random_factors(n, k // group_size, dtype, generator) if has_offset else None
    weight = codes.double().view(n, -1, group_size) * scale.to_float().double()[..., None]
    if offset is not None:
        weight += offset.to_float().double()[..., None]
    return native.pack(codes, scale, offset, bits), weight.view(n, k)


MATRICES = {
    "Q4_0": {"bits": 4, "group_size": 32, "is_signed": True},
    "Q4_1": {"bits": 4, "group_size": 32, "has_offset": True},
    "Q8_0": {"bits": 8, "group_size": 32},
    "Q6_K": {"bits": 8, "group_size": 16, "dtype": torch.int8},
    "Q2_K": {"bits": 4, "group_size": 16, "dtype": torch.int8, "has_offset": True},
    "in fp32": {"bits": 4, "group_size": 32, "dtype": torch.float32, "has_offset": True},
}


@pytest.mark.parametrize("rows", [1, 3, 8, 20])
@pytest.mark.parametrize("name", MATRICES)
def test_a_product_equals_the_one_in_fp64(kernels, name, rows):
    matrix, weight = random_matrix(71, 256, **MATRICES[name])
    x = torch.randn(rows, 256, generator=torch.Generator().manual_seed(0))
    bias = torch.linspace(-1, 1, 71)
    exact = x.double() @ weight.T + bias
    found = native.multiply(kernels, matrix, x, bias)
    assert ((found - exact).abs().max() / exact.abs().max()) < 5e-5  # activations of 16 bits, weights exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 3, 20])
def test_a_dense_product_equals_the_one_in_fp64(kernels, dtype, rows):
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(71, 50, generator=generator).to(dtype), torch.randn(rows, 50, generator=generator)
    exact = x.double() @ weight.double().T
    torch.testing.assert_close(native.multiply(kernels, weight, x).double(), exact, atol=1e-5, rtol=1e-5)


def test_a_row_has_the_same_bits_alone_and_among_others(kernels):
    matrix, _ = random_matrix(71, 256, 4, 32, has_offset=True)
    x = torch.randn(20, 256, generator=torch.Generator().manual_seed(0))
    together = native.multiply(kernels, matrix, x)
    for i in range(20):
        assert torch.equal(native.multiply(kernels, matrix, x[i : i + 1]), together[i : i + 1])
    assert torch.equal(native.multiply(kernels, matrix, x[:3]), together[:3])


@pytest.mark.parametrize("size", [0.0, 1e-20, 1e30])
def test_activations_of_any_size_are_multiplied(size):
    matrix, weight = random_matrix(32, 64, 8, 32)
    x = torch.full((1, 64), size)
    exact = (x.double() @ weight.T).float()
    torch.testing.assert_close(native.multiply(machine(), matrix, x), exact, rtol=1e-4, atol=size * 1e-4)


@pytest.mark.parametrize("index", [0, 5, 16, 40, 63])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_activations_that_are_no_numbers_do_not_look_like_numbers(index, value):
    matrix, _ = random_matrix(32, 64, 8, 32)
    x = torch.ones(1, 64)
    x[0, index] = value
    assert not native.multiply(machine(), matrix, x).isfinite().any()


def test_compiled_kernels_are_kept_and_a_damaged_one_is_made_again(tmp_path):
    matrix, weight = random_matrix(32, 64, 4, 32, has_offset=True)
    x = torch.randn(1, 64)
    first = native.multiply(Machine(tmp_path), matrix, x)
    files = {path: path.read_bytes() for path in tmp_path.glob("*.o")}
    assert any(path.name.startswith("product") for path in files)
    for path, data in files.items():
        path.write_bytes(data[:-9])
        os.utime(path, (1, 1))
    assert torch.equal(native.multiply(Machine(tmp_path), matrix, x), first)
    assert {path: path.read_bytes() for path in files} == files


def test_a_processor_without_half_precision_gets_no_kernels(tmp_path):
    with pytest.raises(RuntimeError, match="half"):
        Machine(tmp_path, frozenset({"f16c"}))


def test_kernels_are_made_where_nothing_can_be_kept(tmp_path):
    (tmp_path / "file").write_text("")
    matrix, weight = random_matrix(32, 64, 4, 32)
    assert native.multiply(Machine(tmp_path / "file" / "kernels"), matrix, torch.ones(1, 64)).isfinite().all()
