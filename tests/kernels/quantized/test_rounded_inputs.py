"""Inputs rounded for each token, as compressed-tensors and LLM.int8 define it; integer products agree."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp

from mengya.kernels.quantized.op import DequantizedWeight, pack
from mengya.kernels.quantized.rounded_inputs import (
    Float8Product,
    Int8Product,
    RoundedInputs,
    full_inputs,
    round_float8,
    round_int8,
)
from mengya.kernels.quantized.weight import QuantizedWeight, Scheme
from tests.kernels.quantized.cases import random_weight


def tokens(rows: int, inputs: int) -> torch.Tensor:
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows))
    x[:, 3] *= 8  # an outlier
    x[-1] = 0
    return x


def reference(weight: QuantizedWeight) -> RoundedInputs:
    return RoundedInputs(weight.scheme, DequantizedWeight(full_inputs(weight), torch.float32))


@pytest.mark.parametrize("kind", ["int", "float"])
def test_rounding_is_that_of_compressed_tensors(kind: str) -> None:
    x = tokens(5, 64)
    args = QuantizationArgs.model_validate(
        {"num_bits": 8, "type": kind, "symmetric": True, "strategy": "token", "dynamic": True}
    )
    scale, zero = compute_dynamic_scales_and_zp(x[None], args, torch.nn.Module())
    scale, zero = scale[0], zero[0]
    expected = quantize(x, scale, zero, args, dtype=torch.int8 if kind == "int" else None)
    codes, ours = round_int8(x, 127.5) if kind == "int" else round_float8(x)
    torch.testing.assert_close(ours[:-1], scale[:-1], rtol=1e-6, atol=0)
    torch.testing.assert_close(codes.float(), expected.float(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(8, activations="int8"),
        Scheme(8, activations="int8_outliers"),
        Scheme(2, number="ternary", activations="int8"),
    ],
    ids=str,
)
def test_integer_product_equals_the_reference(scheme: Scheme) -> None:
    weight = random_weight(scheme, 48, 64)
    for rows in (1, 4, 40):
        x = tokens(rows, 64)
        out = Int8Product(weight)(x)
        torch.testing.assert_close(out, reference(weight)(x), rtol=1e-5, atol=1e-5)


def test_outliers_stay_as_they_are() -> None:
    """Their column is not rounded, and does not coarsen the steps of the others."""
    x = torch.full((2, 64), 0.3)
    x[0, 5], x[1, 5] = 100.0, 0.01
    weight = random_weight(Scheme(8, activations="int8_outliers"), 16, 64)
    exact = F.linear(x, weight.dequantize())
    for product in (Int8Product(weight), reference(weight)):
        torch.testing.assert_close(product(x), exact, rtol=1e-4, atol=1e-4)
    rounded = random_weight(Scheme(8, activations="int8"), 16, 64)
    assert (reference(rounded)(x) - exact).abs().max() > 1e-2


def test_other_schemes_round_their_inputs_too() -> None:
    for scheme in (
        Scheme(4, 32, activations="int8"),
        Scheme(8, symmetric=False, activations="int8"),
        Scheme(8, number="float8", activations="float8"),
    ):
        weight = random_weight(scheme, 64, 128)
        x = tokens(6, 128)
        packed = pack(weight, torch.float32)
        expected = reference(weight)(x)
        assert ((packed(x) - expected).norm() / expected.norm()).item() < 0.006
        assert (expected - F.linear(x, weight.dequantize())).norm() > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_products_on_the_gpu() -> None:
    for scheme, kind in (
        (Scheme(8, activations="int8"), Int8Product),
        (Scheme(8, activations="int8_outliers"), Int8Product),
        (Scheme(8, number="float8", activations="float8"), Float8Product),
    ):
        weight = random_weight(scheme, 64, 128)
        packed = pack(weight.to("cuda"), torch.bfloat16)
        assert type(packed) is kind
        for rows in (1, 20, 70):
            x = tokens(rows + 1, 128)[:rows].bfloat16()  # the last of `tokens` is zero
            graph, on_device = torch.cuda.CUDAGraph(), x.cuda()
            packed(on_device)
            with torch.cuda.graph(graph):
                out = packed(on_device)
            graph.replay()
            expected = reference(weight)(x.float())
            assert ((out.cpu().float() - expected).norm() / expected.norm()).item() < 0.01
