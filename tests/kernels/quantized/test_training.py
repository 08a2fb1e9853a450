"""Rounded products: transformers' BitNet to the last code; what is stored is what was trained."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.integrations.bitnet import ActQuant, WeightQuant

from mengya.kernels.quantized import training
from mengya.kernels.quantized.weight import Scheme

TERNARY = Scheme(2, number="ternary", activations="int8")
INTS = [Scheme(bits, size) for bits in (2, 3, 4, 8) for size in (32, None)]


def matrix(*shape: int, seed: int = 0) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.05
    return made.requires_grad_()


def test_ternary_weights_are_those_of_transformers() -> None:
    for seed in range(5):
        weight = matrix(48, 64, seed=seed)
        with torch.compiler.set_stance("force_eager"):
            expected = WeightQuant.forward(None, weight.detach())
        stored = training.quantize(weight, TERNARY)[0]
        assert torch.equal(stored.codes_OI.int() - 1, expected.sign().int())
        assert torch.equal(stored.dequantize(), expected)


def test_inputs_are_rounded_as_in_transformers() -> None:
    x = matrix(3, 7, 64)
    with torch.compiler.set_stance("force_eager"):
        expected = ActQuant.forward(None, x.detach())
    assert torch.equal(training.rounded_inputs(x), expected)


@pytest.mark.parametrize("scheme", [TERNARY, *INTS], ids=str)
def test_what_is_stored_is_what_is_multiplied_by(scheme: Scheme) -> None:
    stack, x = matrix(3, 48, 64), matrix(5, 64, seed=1)
    for weight, stored in zip(stack, training.quantize(stack, scheme), strict=True):
        codes = stored.codes_OI.long()
        assert 0 <= codes.min() < codes.max() < 2**scheme.bits
        inputs = training.rounded_inputs(x) if scheme.activations == "int8" else x
        expected = F.linear(inputs, stored.dequantize())
        got = training.linear(x, weight, None, scheme)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scheme", [TERNARY, Scheme(2, 32)], ids=str)
def test_gradients_pass_the_rounding(scheme: Scheme) -> None:
    weight, x, bias = matrix(48, 64), matrix(5, 64, seed=1), matrix(48, seed=2)
    upstream = matrix(5, 48, seed=3).detach()
    training.linear(x, weight, bias, scheme).backward(upstream)
    given = [x.grad, weight.grad, bias.grad]
    inputs = training.rounded_inputs(x) if scheme.activations == "int8" else x
    values = (
        inputs.detach().requires_grad_(),
        training.rounded(weight, scheme).detach().requires_grad_(),
    )
    F.linear(*values).backward(upstream)
    for got, expected in zip(given[:2], values, strict=True):
        torch.testing.assert_close(got, expected.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(given[2], upstream.sum(0))


def test_half_precision_multiplies_exact_codes() -> None:
    weight, x = matrix(48, 64), matrix(5, 64, seed=1)
    expected = training.linear(x, weight, None, TERNARY)
    with torch.autocast("cpu", torch.bfloat16):
        got = training.linear(x, weight, None, TERNARY)
    assert got.dtype == torch.bfloat16
    # The product rounded once, and its scale: bf16 values would be off by a factor of 1 + 2^-9 each.
    assert (got - expected).abs().max() <= expected.abs().max() * 2**-7


def test_groups_of_zeros_and_hostile_numbers() -> None:
    weight = torch.zeros(4, 64)
    weight[1] = 1e-30
    weight[2, 0] = 1e4
    for scheme in (TERNARY, *INTS):
        values = training.rounded(weight, scheme)
        assert values.isfinite().all() and (values[0] == 0).all()
        assert training.quantize(weight, scheme)[0].dequantize().isfinite().all()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_scales_are_better_than_those_of_the_largest_weight(bits: int) -> None:
    """And the same in every dtype that layouts hold them in."""
    weight, scheme = matrix(64, 128).detach(), Scheme(bits, 32)
    grouped = weight.unflatten(1, (-1, 32))
    scale = grouped.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 0.5)
    codes = (grouped / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    usual = (codes * scale).flatten(1) - weight
    stored = training.quantize(weight, scheme)[0]
    assert (stored.dequantize() - weight).square().sum() < 0.9 * usual.square().sum()
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(stored.scale_OG, stored.scale_OG.to(dtype).float())


@pytest.mark.slow
def test_the_compiler_gives_the_same() -> None:
    weight, x = matrix(48, 64), matrix(5, 64, seed=1)
    for scheme in (TERNARY, Scheme(2, 32)):
        compiled = torch.compile(training.linear)
        torch.testing.assert_close(
            compiled(x, weight, None, scheme), training.linear(x, weight, None, scheme),
            rtol=1e-5, atol=1e-5,
        )  # fmt: skip
