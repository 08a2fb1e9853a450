"""The experts' sum in plain PyTorch: sort rows by expert, multiply group by group, sort back.

Any device and dtype; the reference of op.py.
Shapes: N tokens, k experts per token, M = N*k rows, E experts, H hidden, I expert width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def grouped_experts(
    x_NH: Tensor,
    weights_Nk: Tensor,
    experts_Nk: Tensor,
    gate_up_EJH: Tensor,
    down_EHI: Tensor,
    round_hidden: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Sum over a token's experts of weight * down(silu(gate(x)) * up(x)), [N, H] in x's dtype.

    Args:
        gate_up_EJH: gate's I rows, then up's (J = 2I), in x's dtype as down_EHI.
        round_hidden: what is done to the inputs of `down`; None: nothing.
    """
    N, k = experts_Nk.shape
    E = gate_up_EJH.shape[0]
    order = experts_Nk.flatten().argsort(stable=True)
    # Where each expert's tokens end; comparing avoids bincount's wait for the device.
    counts = (experts_Nk.reshape(-1, 1) == torch.arange(E, device=order.device)).sum(0)
    ends = counts.cumsum(0).to(torch.int32)
    inverse = torch.empty_like(order).scatter_(0, order, torch.arange(N * k, device=order.device))
    sorted_x = _gather(x_NH, order, inverse, k)
    multiply = grouped_product if _can_use_grouped_mm(sorted_x, down_EHI) else looped_product
    gate, up = multiply(sorted_x, gate_up_EJH, ends).chunk(2, dim=-1)
    hidden = F.silu(gate) * up
    if round_hidden is not None:
        hidden = round_hidden(hidden)
    sorted_out = multiply(hidden, down_EHI, ends)
    out_NkH = _gather(sorted_out, inverse, order, 1).view(N, k, -1)
    # With a dtype: autocast on CUDA (not on a CPU) sums into fp32, which the residual stream would keep.
    return (out_NkH * weights_Nk[:, :, None].to(x_NH.dtype)).sum(1, dtype=x_NH.dtype)


class _Gather(torch.autograd.Function):
    """Rows `order // k` of x, where `order` is a permutation of k copies of each row.

    Autograd would add the gradients into place one by one (on CUDA by sorting, or in random order);
    as the inverse permutation is known, they are gathered and summed instead.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor, k: int) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.k = k
        return x[order // k]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (inverse,) = ctx.saved_tensors
        return gradients[0][inverse].unflatten(0, (-1, ctx.k)).sum(1), None, None, None


def _gather(x: Tensor, order: Tensor, inverse: Tensor, k: int) -> Tensor:
    gathered = _Gather.apply(x, order, inverse, k)
    assert isinstance(gathered, Tensor)  # `apply` is untyped
    return gathered


def _can_use_grouped_mm(x: Tensor, down_EHI: Tensor) -> bool:
    """CUDA's grouped matmul takes bfloat16 with rows of a multiple of 16 bytes."""
    aligned = down_EHI.shape[1] % 8 == 0 and down_EHI.shape[2] % 8 == 0
    return x.is_cuda and x.dtype == torch.bfloat16 and aligned


def grouped_product(x: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """Rows of expert e times its weight, in one kernel and without a device sync."""
    return F.grouped_mm(x, weight_EOI.transpose(1, 2), offs=ends_E)


def looped_product(x: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """The same by a loop over experts (any device and dtype; waits for the device once)."""
    ends = ends_E.tolist()
    starts = [0, *ends[:-1]]
    parts = [
        F.linear(x[a:b], weight_EOI[e]) for e, (a, b) in enumerate(zip(starts, ends, strict=True))
    ]
    return torch.cat(parts)
