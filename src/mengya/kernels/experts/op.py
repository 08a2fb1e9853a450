"""The experts' sum with nothing copied into sorted order: Triton kernels behind two operators.

Same function as `grouped_experts.py`, in bf16 on CUDA; `torch.compile` sees two opaque operators. How a
kernel is launched is in expert_launches.py.
Shapes: N tokens, k experts per token, M = N*k rows, E experts, H hidden, I expert width, J = 2I.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mengya.kernels.experts.launch import (
    TILES,
    add_choices,
    cdiv,
    cut,
    launch,
    options,
    product,
    sort_rows,
    weight_gradient,
)
from mengya.kernels.triton_available import has_triton

_HAS_TRITON = has_triton()
_MULTIPLE = 16  # of H and I: loads of 16 bytes and more


def is_supported(x_NH: Tensor, down_EHI: Tensor) -> bool:
    """bf16 on an NVIDIA device with Triton, and widths that are multiples of 32 bytes."""
    aligned = down_EHI.shape[1] % _MULTIPLE == 0 and down_EHI.shape[2] % _MULTIPLE == 0
    cuda = x_NH.is_cuda and torch.version.cuda is not None
    return _HAS_TRITON and cuda and aligned and x_NH.dtype == down_EHI.dtype == torch.bfloat16


def fused_experts(
    x_NH: Tensor, weights_Nk: Tensor, experts_Nk: Tensor, gate_up_EJH: Tensor, down_EHI: Tensor
) -> Tensor:
    """`grouped_experts`, where `is_supported`; weights_Nk are fp32."""
    learns = torch.is_grad_enabled()
    return _experts(x_NH, weights_Nk, experts_Nk, gate_up_EJH, down_EHI, learns)[0]


@torch.library.custom_op("mengya::experts", mutates_args=())
def _experts(
    x_NH: Tensor,
    weights_Nk: Tensor,
    experts_Nk: Tensor,
    gate_up_EJH: Tensor,
    down_EHI: Tensor,
    learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(out_NH, gate and up of each sorted row, order_M, ends_E); the last three are for backward."""
    from mengya.kernels.experts import experts_triton as kernels

    x_NH = x_NH.contiguous()
    (N, H), k = x_NH.shape, experts_Nk.shape[1]
    E, J, _ = gate_up_EJH.shape
    M, I = N * k, J // 2
    with torch.cuda.device_of(x_NH):
        order_M, ends_E = sort_rows(experts_Nk, E)
        gate_up_MJ = x_NH.new_empty(M if learns else 0, J)
        hidden_MI = x_NH.new_empty(M, I)
        tile = TILES["gate_up"]
        tiles_T3 = cut(ends_E, M, tile.m)
        launch(
            kernels.gate_up, len(tiles_T3) * cdiv(I, tile.n),
            x_NH, gate_up_EJH.contiguous(), order_M, tiles_T3, gate_up_MJ, hidden_MI, H, I, k,
            SAVE=learns, EVEN=H % tile.k == 0, **options(tile, 2 * tile.n),
        )  # fmt: skip
        rows_MH = product(hidden_MI, down_EHI.contiguous(), order_M, ends_E, weights_Nk, down=True)
        return add_choices(rows_MH, k), gate_up_MJ, order_M, ends_E


@_experts.register_fake
def _(
    x_NH: Tensor,
    weights_Nk: Tensor,
    experts_Nk: Tensor,
    gate_up_EJH: Tensor,
    down_EHI: Tensor,
    learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    M = experts_Nk.shape[0] * experts_Nk.shape[1]
    E, J, _ = gate_up_EJH.shape
    order_M = experts_Nk.new_empty(M, dtype=torch.int32)
    ends_E = experts_Nk.new_empty(E, dtype=torch.int32)
    return x_NH.new_empty(x_NH.shape), x_NH.new_empty(M if learns else 0, J), order_M, ends_E


@torch.library.custom_op("mengya::experts_backward", mutates_args=())
def _experts_backward(
    dout_NH: Tensor,
    x_NH: Tensor,
    weights_Nk: Tensor,
    gate_up_EJH: Tensor,
    down_EHI: Tensor,
    gate_up_MJ: Tensor,
    order_M: Tensor,
    ends_E: Tensor,
    frozen: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weights, gate_up and down; the last two are empty when `frozen`."""
    from mengya.kernels.experts import experts_triton as kernels

    dout_NH, x_NH = dout_NH.contiguous(), x_NH.contiguous()
    weights_Nk, gate_up_EJH, down_EHI = (
        weights_Nk.contiguous(), gate_up_EJH.contiguous(), down_EHI.contiguous()
    )  # fmt: skip
    M, (H, I), k = len(order_M), down_EHI.shape[1:], weights_Nk.shape[1]
    with torch.cuda.device_of(x_NH):
        tile = TILES["swiglu_backward"]
        tiles_T3 = cut(ends_E, M, tile.m)
        columns = cdiv(I, tile.n)
        dgate_up_MJ, weighted_MI = torch.empty_like(gate_up_MJ), x_NH.new_empty(M, I)
        dweights_MP = weights_Nk.new_empty(M, columns)
        launch(
            kernels.swiglu_backward, len(tiles_T3) * columns,
            dout_NH, down_EHI, order_M, weights_Nk, tiles_T3, gate_up_MJ,
            dgate_up_MJ, weighted_MI, dweights_MP, H, I, k,
            EVEN=H % tile.k == 0, **options(tile, tile.n),
        )  # fmt: skip
        dx_NH = add_choices(product(dgate_up_MJ, gate_up_EJH, order_M, ends_E, None), k)
        dweights_Nk = dweights_MP.sum(1).view_as(weights_Nk)
        if frozen:
            return dx_NH, dweights_Nk, x_NH.new_empty(0), x_NH.new_empty(0)
        dgate_up = weight_gradient(dgate_up_MJ, x_NH, order_M, ends_E, k, tokens_left=False)
        ddown = weight_gradient(dout_NH, weighted_MI, order_M, ends_E, k, tokens_left=True)
        return dx_NH, dweights_Nk, dgate_up, ddown


@_experts_backward.register_fake
def _(
    dout_NH: Tensor,
    x_NH: Tensor,
    weights_Nk: Tensor,
    gate_up_EJH: Tensor,
    down_EHI: Tensor,
    gate_up_MJ: Tensor,
    order_M: Tensor,
    ends_E: Tensor,
    frozen: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        x_NH.new_empty(x_NH.shape),
        weights_Nk.new_empty(weights_Nk.shape),
        x_NH.new_empty(0 if frozen else gate_up_EJH.shape),
        x_NH.new_empty(0 if frozen else down_EHI.shape),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x_NH, weights_Nk, _, gate_up_EJH, down_EHI, _ = inputs
    ctx.save_for_backward(x_NH, weights_Nk, gate_up_EJH, down_EHI, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, dout_NH: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    frozen = not (ctx.needs_input_grad[3] or ctx.needs_input_grad[4])
    dx, dweights, dgate_up, ddown = _experts_backward(dout_NH, *ctx.saved_tensors, frozen)
    if frozen:
        return dx, dweights, None, None, None, None
    return dx, dweights, None, dgate_up, ddown, None


_experts.register_autograd(_backward, setup_context=_keep)
