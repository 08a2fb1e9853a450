"""The Triton kernel against its PyTorch twin: in Triton's interpreter on a CPU, compiled on a GPU."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from mengya.kernels.swiglu import swiglu, swiglu_plain
from tests.helpers.triton_interpreter import Interpret

SHAPES = [(2, 17, 2 * 300), (8, 2 * 256), (1, 1, 2 * 24)]


def results(function, shape, dtype: torch.dtype, device: str) -> list[Tensor]:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(len(shape))

    def draw(*shape: int) -> Tensor:
        return (3 * torch.randn(*shape, generator=generator)).to(device, dtype)

    gate_up = draw(*shape).requires_grad_()
    hidden = function(gate_up)
    hidden.backward(draw(*hidden.shape))
    assert gate_up.grad is not None
    return [hidden.detach(), gate_up.grad]


def check(device: str) -> None:
    for shape in SHAPES:
        exact = results(swiglu_plain, shape, torch.float32, device)
        ours = results(swiglu, shape, torch.float32, device)
        for a, b in zip(ours, exact, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        # Rounded once, so never further from the twin in fp32 on the same numbers than one rounding.
        ours = results(swiglu, shape, torch.bfloat16, device)
        again = results(
            lambda x: swiglu_plain(x.float()).to(x.dtype), shape, torch.bfloat16, device
        )
        for a, b in zip(ours, again, strict=True):
            torch.testing.assert_close(a, b, atol=2**-7, rtol=2**-7)
    x = torch.randn(5, 2 * 24, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.mengya.swiglu.default, (x,))


def test_kernel_equals_its_twin_in_the_interpreter(interpret: Interpret) -> None:
    interpret(partial(check, "cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernel_equals_its_twin_on_the_gpu() -> None:
    check("cuda")
