"""The Triton kernel against its PyTorch twin: in Triton's interpreter on a CPU, compiled on a GPU."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from mengya.kernels.qkv import split_norm_rotate, split_norm_rotate_plain
from tests.helpers.triton_interpreter import Interpret

CASES = [  # tokens, query heads, key heads, head width, qk-norm
    (37, 4, 2, 48, True),
    (8, 2, 2, 16, False),
    (65, 8, 1, 96, True),
]


def results(function, case, dtype: torch.dtype, device: str) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """q, k, v and the gradients of the product and of the norms' weights."""
    N, H, K, D, norm = case
    generator = torch.Generator().manual_seed(N)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    qkv = draw(N, (H + 2 * K) * D).to(dtype).requires_grad_()
    angles = draw(N, D // 2)
    weights = [draw(D).requires_grad_() for _ in range(2)] if norm else [None, None]
    heads = function(qkv, *weights, angles.cos(), angles.sin(), H, K, 1e-6)
    torch.autograd.backward(heads, [draw(*t.shape).to(dtype) for t in heads])
    leaves = [qkv, *(w for w in weights if w is not None)]
    return [*(t.detach() for t in heads), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def check(device: str) -> None:
    for case in CASES:
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
            ours = results(split_norm_rotate, case, dtype, device)
            plain = results(split_norm_rotate_plain, case, dtype, device)
            assert len(ours) == len(plain) == (6 if case[-1] else 4)
            for a, b in zip(ours, plain, strict=True):
                assert a.dtype == b.dtype
                torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def test_kernel_equals_its_twin_in_the_interpreter(interpret: Interpret) -> None:
    interpret(partial(check, "cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernel_equals_its_twin_on_the_gpu() -> None:
    check("cuda")
