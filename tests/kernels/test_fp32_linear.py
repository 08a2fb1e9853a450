"""The linear layer of split weights is the fp32 one, forward and backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.kernels.fp32_linear import split_linear


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_split_linear_is_the_fp32_linear(device: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 64, device=device).bfloat16()
    weight = torch.randn(5, 64, device=device)
    dout = torch.randn(300, 5, device=device)

    def run(compute: object, x: Tensor) -> list[Tensor]:
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        out = compute(*leaves)  # type: ignore[operator]
        out.backward(dout)
        return [out, *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    exact = run(F.linear, x.float())
    # Compiling for a CPU takes a minute.
    compiled = [torch.compile(split_linear, fullgraph=True)] if device == "cuda" else []
    for compute in (split_linear, *compiled):
        split = run(compute, x)
        assert split[1].dtype == torch.bfloat16  # rounded once: half of the last of 8 bits
        for ours, expected, tolerance in zip(split, exact, (1e-6, 4e-3, 1e-4), strict=True):
            assert (ours.float() - expected).norm() / expected.norm() < tolerance
