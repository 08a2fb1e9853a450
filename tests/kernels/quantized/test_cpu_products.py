"""Products on a CPU against the dequantized matrix, for every scheme; PyTorch's kernels round to bf16."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.kernels.quantized.cpu_int4 import Int4Weight
from mengya.kernels.quantized.cpu_int8 import Int8Weight
from mengya.kernels.quantized.op import DequantizedWeight, pack
from mengya.kernels.quantized.weight import QuantizedWeight, Scheme
from tests.kernels.quantized.cases import random_weight

VECTORS = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
vectorized = pytest.mark.skipif(not VECTORS, reason="the kernels need AVX2 or AVX-512")
SCHEMES = [
    Scheme(4, 32), Scheme(4, 128, symmetric=False), Scheme(4), Scheme(3, 64), Scheme(3, symmetric=False),
    Scheme(2, 32, symmetric=False), Scheme(2, number="ternary"), Scheme(8, 64), Scheme(8),
    Scheme(8, 96, symmetric=False), Scheme(8, symmetric=False), Scheme(4, 48), Scheme(8, number="float8"),
]  # fmt: skip


def relative_error(out: Tensor, expected: Tensor) -> float:
    return ((out.float() - expected).norm() / expected.norm()).item()


def check(
    weight: QuantizedWeight, dtype: torch.dtype = torch.float32, bound: float = 0.006
) -> None:
    packed, full = pack(weight, dtype), weight.dequantize()
    assert relative_error(packed.dequantize(torch.float32), full) < bound
    for rows in (1, 9, 70):
        x = torch.randn(2, rows, weight.shape[1]).to(dtype)
        out = packed(x)
        assert out.dtype == dtype and out.shape == (2, rows, weight.shape[0])
        assert relative_error(out, F.linear(x.float(), full)) < bound


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_product_equals_the_dequantized_matrix(scheme: Scheme) -> None:
    inputs = 2 * (scheme.group_size or 80)
    check(random_weight(scheme, 100, inputs))
    check(random_weight(scheme, 128, inputs), torch.bfloat16, 0.01)
    check(random_weight(scheme, 64, inputs), torch.float16)


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s.group_size], ids=str)
def test_columns_of_a_group_need_not_be_neighbours(scheme: Scheme) -> None:
    check(random_weight(scheme, 96, 4 * (scheme.group_size or 0), act_order=True))


def test_groups_of_unequal_size() -> None:
    weight = random_weight(Scheme(4, 32), 64, 128, act_order=True)
    assert weight.group_I is not None
    weight.group_I[:] = torch.arange(128).clamp(max=3).to(torch.int32)
    assert type(pack(weight, torch.float32)) is DequantizedWeight
    check(weight)


@vectorized
def test_packed_weights_are_small() -> None:
    for scheme, kind, bits in (
        (Scheme(4, 128), Int4Weight, 4.3), (Scheme(3, 64), Int4Weight, 4.6), (Scheme(2), Int4Weight, 4.3),
        (Scheme(8, 128), Int4Weight, 8.6), (Scheme(8), Int8Weight, 8.1),
    ):  # fmt: skip
        packed = pack(random_weight(scheme, 256, 512), torch.float32)
        assert type(packed) is kind
        assert sum(t.nbytes for t in packed.buffers()) * 8 < bits * 256 * 512


@vectorized
def test_inputs_that_the_kernel_of_8_bits_cannot_take() -> None:
    """PyTorch's reads beyond the last row then."""
    weight = random_weight(Scheme(8), 96, 300)
    assert type(pack(weight, torch.float32)) is Int4Weight
    check(weight)
