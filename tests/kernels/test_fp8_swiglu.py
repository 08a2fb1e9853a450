"""fp8 feed-forward layers: against fp32, the kernels against their twins, and what must not be lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.kernels.fp8 import swiglu as fp8
from tests.helpers.triton_interpreter import Interpret

H, WIDTH = 64, 176
Layer = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def exact(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T


def draw(N: int = 96) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Hidden states, the gradient of the output, and the three weights."""
    random = torch.Generator().manual_seed(0)
    shapes = (WIDTH, H), (WIDTH, H), (H, WIDTH)
    weights = [0.05 * torch.randn(*shape, generator=random) for shape in shapes]
    x, dy = (torch.randn(N, H, generator=random) for _ in range(2))
    return x, 1e-6 * dy, weights


def results(layer: Layer, x: Tensor, dy: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of x, gate, up and down."""
    inputs = [tensor.clone().requires_grad_() for tensor in (x, *weights)]
    y = layer(*inputs)
    y.backward(dy.to(y.dtype))
    return [y.detach(), *(tensor.grad for tensor in inputs if tensor.grad is not None)]


def error(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b).norm() / b.norm())


def test_output_and_gradients_are_near_fp32() -> None:
    x, dy, weights = draw()
    ours, theirs = results(fp8.fp8_swiglu, x, dy, weights), results(exact, x, dy, weights)
    # A number of 3 bits is off by 2^-4 / sqrt(3) = 3.6 % at most, products of two or three by 5 to 8.
    for a, b in zip(ours, theirs, strict=True):
        assert 0.01 < error(a, b) < 0.1
        assert float(F.cosine_similarity(a.flatten(), b.flatten(), dim=0)) > 0.995


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**20])  # powers of two: bf16 rounds both alike
def test_the_size_of_a_gradient_does_not_matter(factor: float) -> None:
    x, dy, weights = draw()
    once, scaled = (results(fp8.fp8_swiglu, x, dy * f, weights)[1:] for f in (1.0, factor))
    for a, b in zip(scaled, once, strict=True):
        assert error(a / factor, b) < 1e-3


def test_a_huge_token_costs_the_others_nothing() -> None:
    x, dy, weights = draw()
    plain = results(fp8.fp8_swiglu, x, dy, weights)
    x[7] *= 1e3
    huge = results(fp8.fp8_swiglu, x, dy, weights)
    others = torch.arange(len(x)) != 7
    torch.testing.assert_close(huge[0][others], plain[0][others], rtol=0, atol=0)
    torch.testing.assert_close(huge[1][others], plain[1][others], rtol=0, atol=0)
    assert error(huge[0], exact(x, *weights)) < 0.1


def test_zeros_and_any_number_of_tokens() -> None:
    x, dy, weights = draw(N=37)
    x[3] = 0
    dy[4] = 0
    for a, b in zip(
        results(fp8.fp8_swiglu, x, dy, weights), results(exact, x, dy, weights), strict=True
    ):
        assert a.shape == b.shape
        assert error(a, b) < 0.1
    assert not results(fp8.fp8_swiglu, x, dy * 0, weights)[1].any()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_stays_so(value: float) -> None:
    x, dy, weights = draw()
    dy[5, 5] = value
    d_x, *d_weights = results(fp8.fp8_swiglu, x, dy, weights)[1:]
    assert not d_x[5].isfinite().all()
    assert not any(d.isfinite().all() for d in d_weights)


def test_frozen_weights_get_no_gradient() -> None:
    x, dy, weights = draw()
    x.requires_grad_()
    fp8.fp8_swiglu(x, *weights).backward(dy)
    assert x.grad is not None
    assert all(weight.grad is None for weight in weights)


def twins(device: str, unlike: float) -> None:
    """Every kernel against its twin; all but a share of `unlike` of the numbers must be the same.

    One operation in another order can round a number to its neighbour; Triton's interpreter gets every
    fortieth wrong, where rounding up reaches the next power of two.
    """

    def alike(function: str, *arguments: object) -> None:
        with patch.object(torch.Tensor, "is_cuda", True):  # in the interpreter there is no CUDA
            ours = getattr(fp8, function)(*arguments)
        for a, b in zip(ours, getattr(fp8, f"{function}_plain")(*arguments), strict=True):
            assert a.dtype == b.dtype and a.is_contiguous()
            assert (a.float() != b.float()).float().mean() <= unlike

    random = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(device)

    for N, width, inner in ((80, 48, 144), (160, 320, 864)):
        scale, one = randn(N).abs() + 0.01, torch.tensor(0.01, device=device)
        for dtype in (torch.float32, torch.bfloat16):
            x = randn(N, width).to(dtype)
            alike("quantize", [x], scale)
            alike("quantize", [x], scale, one)
            alike("quantize", [x], scale, scale)
            alike("quantize", [x[:32], x[32:]], one)
            gate_up, d_hidden = (2 * randn(N, 2 * inner)).to(dtype), randn(N, inner).to(dtype)
            alike("swiglu", gate_up, scale, scale)
            alike("swiglu_backward", 1e3 * d_hidden, gate_up, scale, scale / scale.max())


def test_kernels_equal_their_twins_in_the_interpreter(interpret: Interpret) -> None:
    interpret(partial(twins, "cpu", 0.1))


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@gpu
def test_kernels_equal_their_twins_on_the_gpu() -> None:
    twins("cuda", 1e-4)


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eager_and_compiled_are_near_fp32_on_the_gpu(dtype: torch.dtype) -> None:
    x, dy, weights = draw(N=1024)
    x, dy, weights = x.cuda(), dy.cuda(), [weight.cuda() for weight in weights]
    theirs = results(exact, x, dy, weights)
    for layer in (fp8.fp8_swiglu, torch.compile(fp8.fp8_swiglu, dynamic=False)):
        for a, b in zip(results(layer, x.to(dtype), dy, weights), theirs, strict=True):
            assert error(a, b) < 0.1


@pytest.mark.gpu
@gpu
def test_gradients_of_weights_add_up_many_tokens_in_fp32() -> None:
    """All of one sign, so that a sum of few bits would stop growing long before its end."""
    x, dy, weights = draw(N=65_536)
    x, dy, weights = x.abs().cuda(), dy.abs().cuda(), [weight.abs().cuda() for weight in weights]
    ours, theirs = (results(layer, x, dy, weights)[2:] for layer in (fp8.fp8_swiglu, exact))
    for a, b in zip(ours, theirs, strict=True):
        assert error(a, b) < 0.03
