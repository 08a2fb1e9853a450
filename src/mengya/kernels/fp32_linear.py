"""A narrow linear layer in fp32 over bf16 inputs, such as a router, without an fp32 copy of its inputs.

A bf16 number times a bf16 number is exact in fp32, and an fp32 weight is a sum of three bf16 numbers.
So the tensor cores give the fp32 product in one pass over x, which costs no more than reading it.
Shapes: N rows, H inputs, E outputs (padded to a multiple of 8, so that rows stay aligned).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_ALIGNED = 8


def fp32_linear(x_NH: Tensor, weight_EH: Tensor) -> Tensor:
    """`F.linear(x.float(), weight.float())`, [N, E] fp32."""
    with torch.autocast(x_NH.device.type, enabled=False):
        if x_NH.is_cuda and x_NH.dtype == torch.bfloat16:
            return split_linear(x_NH, weight_EH)
        return F.linear(x_NH.float(), weight_EH.float())


def split_linear(x_NH: Tensor, weight_EH: Tensor) -> Tensor:
    """The same for bf16 x; the gradient of x comes back rounded to bf16, as x is."""
    padded = F.pad(weight_EH.float(), (0, 0, 0, -len(weight_EH) % _ALIGNED))
    out = _SplitLinear.apply(x_NH, padded)
    assert isinstance(out, Tensor)  # `apply` is untyped
    return out[:, : len(weight_EH)]


class _SplitLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NH: Tensor, weight_EH: Tensor) -> Tensor:
        ctx.save_for_backward(x_NH, weight_EH)
        parts = torch.cat(_split(weight_EH, 3))
        return _multiply(x_NH, parts.t()).unflatten(1, (3, -1)).sum(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x_NH, weight_EH = ctx.saved_tensors
        high, low = _split(gradients[0], 2)
        weight_high, weight_low = _split(weight_EH, 2)
        # (high + low) (weight_high + weight_low), but for the product of the two small parts
        dx = torch.cat([high, low, high], 1) @ torch.cat([weight_high, weight_high, weight_low])
        both = torch.cat([high, low], 1)
        return dx, _multiply(both.t(), x_NH).unflatten(0, (2, -1)).sum(0)


def _split(values: Tensor, parts: int) -> list[Tensor]:
    """bf16 tensors of 8 bits of `values` each: three hold all 24 of fp32.

    Cut off by a mask, as the compiler drops a rounding to bf16 that is at once undone.
    """
    found = []
    for _ in range(parts):
        high = (values.view(torch.int32) & -(1 << 16)).view(torch.float32)
        found.append(high.to(torch.bfloat16))
        values = values - high
    return found


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """bf16 times bf16, added up and given in fp32."""
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float()
