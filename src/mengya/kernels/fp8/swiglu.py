"""A SwiGLU layer whose six products run in fp8, with the formats of arXiv:2209.05433.

Values and weights are e4m3 (3 bits of mantissa), gradients of gate and up e5m2 (twice the range). A number
is its 8 bits times a scale. Each weight has one scale, computed at every call, and each token has its own:
a token with huge values costs no other token its precision, and no state is kept between steps. A weight's
gradient sums over tokens, so its factors cannot both have a scale per token; the product of the 8-bit rows
is differentiated instead, and the chain rule moves the scale to the other factor. `gate * up` and its
gradient are computed in fp32, by Triton on CUDA (swiglu_triton.py), else by the plain functions below. The
kernels are no custom ops: the compiler launches them itself, without the dispatcher's cost on the host.
Shapes: N tokens, H hidden, F width. `transposed8` is a tensor's transpose, contiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F_
from torch import Tensor

from mengya.kernels import swiglu as fused_swiglu
from mengya.runtime.integers import ceil_div

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
E4M3_MAX, E5M2_MAX = 448.0, 57_344.0
MIN_SCALE = 1e-30  # for a row of zeros
GRAD_MAX = 2.0**13  # the largest number of a gradient in e5m2, whose smallest is 2^-16
_ROWS, _COLUMNS, _WARPS = 64, 128, 8  # of one program: as fast as any of twenty others on an H100
MULTIPLE = 16  # every width must be one: tensor cores take nothing else


def fp8_swiglu(x: Tensor, gate_FH: Tensor, up_FH: Tensor, down_HF: Tensor) -> Tensor:
    """down(silu(gate(x)) * up(x)), [..., H] in the dtype of x.

    Args:
        x: [..., H], bf16 or fp32; H and F are multiples of MULTIPLE.
        gate_FH, up_FH, down_HF: of one dtype, in which they get their gradients.
    """
    x_NH = x.flatten(0, -2)
    N = len(x_NH)
    y_NH = _FP8SwiGLU.apply(F_.pad(x_NH, (0, 0, 0, -N % MULTIPLE)), gate_FH, up_FH, down_HF)
    assert isinstance(y_NH, Tensor)  # `apply` is untyped
    return y_NH[:N].to(x.dtype).view_as(x)


class _FP8SwiGLU(torch.autograd.Function):
    """Output in bf16, as `_scaled_mm` gives it with a scale per row."""

    @staticmethod
    def forward(ctx: Any, x_NH: Tensor, gate_FH: Tensor, up_FH: Tensor, down_HF: Tensor) -> Tensor:
        x_scale_N = _row_scale(x_NH)
        gate_up_scale = torch.maximum(_scale(gate_FH), _scale(up_FH))
        down_scale = _scale(down_HF)
        hidden_scale_N = _hidden_scale(x_NH, gate_FH, up_FH)
        x8_NH, x8_HN = quantize([x_NH], x_scale_N)
        gate_up8_GH, gate_up8_HG = quantize([gate_FH, up_FH], gate_up_scale)  # G = 2F
        down8_HF, down8_FH = quantize([down_HF], down_scale)
        # Without x_scale_N: `swiglu` applies it.
        gate_up_NG = _product(x8_NH, gate_up8_GH, gate_up_scale, x_NH.dtype, short=True)
        hidden8_NF, hidden8_FN = swiglu(gate_up_NG, x_scale_N, hidden_scale_N)
        y_scale_N = hidden_scale_N * down_scale
        y_NH = _product(hidden8_NF, down8_HF, y_scale_N, torch.bfloat16, short=True)
        ctx.save_for_backward(
            x8_HN, x_scale_N, gate_up_NG, hidden8_FN, hidden_scale_N, gate_up8_HG, gate_up_scale,
            down8_FH, down_scale,
        )  # fmt: skip
        ctx.weight_dtype = gate_FH.dtype
        return y_NH

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (
            x8_HN, x_scale_N, gate_up_NG, hidden8_FN, hidden_scale_N, gate_up8_HG, gate_up_scale,
            down8_FH, down_scale,
        ) = ctx.saved_tensors  # fmt: skip
        dtype = gate_up_NG.dtype
        d_NH = upstream[0]
        d_scale_N = _row_scale(d_NH)
        # The transpose includes hidden_scale_N, so that no weight's gradient needs that.
        d_scale = (d_scale_N * hidden_scale_N).amax() * (E4M3_MAX / GRAD_MAX)
        d_scale = d_scale.clamp_min(MIN_SCALE)
        d8_NH, d8_HN = quantize([d_NH], d_scale_N, d_scale / hidden_scale_N)
        # Without d_scale_N, as everything computed from it.
        d_hidden_NF = _product(d8_NH, down8_FH, down_scale, dtype, short=True)
        by_token_N = d_scale_N * x_scale_N
        largest = by_token_N.amax()
        d_gate_up8_NG, d_gate_up8_GN = swiglu_backward(
            d_hidden_NF, gate_up_NG, x_scale_N, by_token_N / largest.clamp_min(MIN_SCALE)
        )
        d_x_NH = _product(d_gate_up8_NG, gate_up8_HG, gate_up_scale, dtype) * d_scale_N[:, None]
        if not any(ctx.needs_input_grad[1:]):  # frozen, under an adapter of other layers
            return d_x_NH.to(dtype), None, None, None
        d_down_HF = _product(d8_HN, hidden8_FN, d_scale, ctx.weight_dtype)
        d_gate_up_GH = _product(d_gate_up8_GN, x8_HN, largest, ctx.weight_dtype)
        d_gate_FH, d_up_FH = d_gate_up_GH.chunk(2)
        return d_x_NH.to(dtype), d_gate_FH, d_up_FH, d_down_HF


def _product(
    a8_MK: Tensor, b8_NK: Tensor, scale: Tensor, dtype: torch.dtype, short: bool = False
) -> Tensor:
    """scale * a8 @ b8.T, [M, N]; sums in fp32.

    Args:
        scale: a scalar, or [M] (dtype bf16 alone): one of every row.
        short: the sums are over features, and tensor cores may use their own 22 bits: off by 1e-3 to
            4e-3 for 2,432 numbers, where e4m3 itself is by 4e-2. For 65,536 tokens it would be up to 2e-1.
    """
    if not a8_MK.is_cuda:
        product = a8_MK.double() @ b8_NK.double().T  # fp32 is autocast's to round
        return (product * scale[..., None]).to(dtype)
    one = scale.new_ones(())
    if scale.dim():
        scale, one = scale[:, None], scale.new_ones(1, len(b8_NK))
    return torch.ops.aten._scaled_mm(
        a8_MK, b8_NK.T, scale_a=scale, scale_b=one, out_dtype=dtype, use_fast_accum=short
    )


def _row_scale(x_NH: Tensor) -> Tensor:
    """[N] fp32: what each row is divided by, so that its largest number is the largest of e4m3."""
    return (x_NH.abs().amax(-1).float() / E4M3_MAX).clamp_min(MIN_SCALE)


def _scale(weight: Tensor) -> Tensor:
    """The same for a full tensor, a scalar."""
    return (weight.abs().amax().float() / E4M3_MAX).clamp_min(MIN_SCALE)


def _hidden_scale(x_NH: Tensor, gate_FH: Tensor, up_FH: Tensor) -> Tensor:
    """[N] fp32: the scale of each row of silu(gate(x)) * up(x), before its numbers are known.

    By Cauchy and Schwarz none is larger than |x|^2 |gate row| |up row|. Most are some hundred times
    smaller, well inside e4m3's range of 2^17.
    """
    lengths_F = torch.linalg.vector_norm(gate_FH, dim=-1) * torch.linalg.vector_norm(up_FH, dim=-1)
    bound_N = x_NH.float().square().sum(-1) * lengths_F.amax().float()
    return (bound_N / E4M3_MAX).clamp_min(MIN_SCALE)


def quantize(
    parts: Sequence[Tensor], scale: Tensor, transposed_scale: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """parts (rows end to end: [N, K]) / scale as e4m3, and its transpose [K, N].

    Args:
        scale: fp32, [N] with one part, or a scalar.
        transposed_scale: of the same shape; the transpose is then parts / transposed_scale, as e5m2.
    """
    if not parts[0].is_cuda:
        return quantize_plain(parts, scale, transposed_scale)
    from mengya.kernels.fp8 import swiglu_triton

    N, K = sum(len(part) for part in parts), parts[0].shape[1]
    rows8 = parts[0].new_empty(N, K, dtype=E4M3)
    transposed8 = parts[0].new_empty(K, N, dtype=E4M3 if transposed_scale is None else E5M2)
    transposed, at = scale if transposed_scale is None else transposed_scale, 0
    for part in parts:
        kernel: Any = swiglu_triton.quantize
        kernel[_grid(len(part), K)](
            part.contiguous(), scale, transposed, rows8, transposed8, at, len(part), K, N,
            scale.dim(), transposed.dim(), _ROWS, _COLUMNS, num_warps=_WARPS,
        )  # fmt: skip
        at += len(part)
    return rows8, transposed8


def quantize_plain(
    parts: Sequence[Tensor], scale: Tensor, transposed_scale: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`quantize` in PyTorch."""
    x_NK = torch.cat(list(parts)).float()
    rows8 = (x_NK / scale[..., None]).to(E4M3)
    if transposed_scale is None:
        return rows8, rows8.T.contiguous()
    return rows8, (x_NK / transposed_scale[..., None]).to(E5M2).T.contiguous()


def swiglu(gate_up_NG: Tensor, x_scale_N: Tensor, scale_N: Tensor) -> tuple[Tensor, Tensor]:
    """silu(gate) * up / scale_N of gate_up * x_scale_N: as e4m3 [N, F], and its transpose."""
    if not gate_up_NG.is_cuda:
        return swiglu_plain(gate_up_NG, x_scale_N, scale_N)
    from mengya.kernels.fp8 import swiglu_triton

    N, F = gate_up_NG.shape[0], gate_up_NG.shape[1] // 2
    hidden8_NF = gate_up_NG.new_empty(N, F, dtype=E4M3)
    hidden8_FN = gate_up_NG.new_empty(F, N, dtype=E4M3)
    kernel: Any = swiglu_triton.forward
    kernel[_grid(N, F)](
        gate_up_NG, x_scale_N, scale_N, scale_N, hidden8_NF, hidden8_FN, N, F,
        _ROWS, _COLUMNS, num_warps=_WARPS,
    )  # fmt: skip
    return hidden8_NF, hidden8_FN


def swiglu_plain(gate_up_NG: Tensor, x_scale_N: Tensor, scale_N: Tensor) -> tuple[Tensor, Tensor]:
    """`swiglu` in PyTorch."""
    hidden = fused_swiglu.swiglu_plain(gate_up_NG.float() * x_scale_N[:, None])
    hidden8 = (hidden / scale_N[:, None]).to(E4M3)
    return hidden8, hidden8.T.contiguous()


def swiglu_backward(
    d_hidden_NF: Tensor, gate_up_NG: Tensor, x_scale_N: Tensor, transposed_factor_N: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient of gate and up as e5m2 [N, 2F], and its transpose with every token times its factor."""
    if not d_hidden_NF.is_cuda:
        return swiglu_backward_plain(d_hidden_NF, gate_up_NG, x_scale_N, transposed_factor_N)
    from mengya.kernels.fp8 import swiglu_triton

    N, F = d_hidden_NF.shape
    d8_NG = gate_up_NG.new_empty(N, 2 * F, dtype=E5M2)
    d8_GN = gate_up_NG.new_empty(2 * F, N, dtype=E5M2)
    kernel: Any = swiglu_triton.backward
    kernel[_grid(N, F)](
        d_hidden_NF, gate_up_NG, x_scale_N, transposed_factor_N, d8_NG, d8_GN, N, F,
        _ROWS, _COLUMNS, num_warps=_WARPS,
    )  # fmt: skip
    return d8_NG, d8_GN


def swiglu_backward_plain(
    d_hidden_NF: Tensor, gate_up_NG: Tensor, x_scale_N: Tensor, transposed_factor_N: Tensor
) -> tuple[Tensor, Tensor]:
    """`swiglu_backward` in PyTorch."""
    gate, up = (gate_up_NG.float() * x_scale_N[:, None]).chunk(2, dim=-1)
    d, sigmoid = d_hidden_NF.float(), gate.sigmoid()
    d_gate_up = torch.cat([d * up * sigmoid * (1 + gate * (1 - sigmoid)), d * gate * sigmoid], -1)
    d_gate_up = d_gate_up.clamp(-E5M2_MAX, E5M2_MAX)
    return d_gate_up.to(E5M2), (d_gate_up * transposed_factor_N[:, None]).to(E5M2).T.contiguous()


def _grid(N: int, K: int) -> tuple[int, int]:
    return ceil_div(N, _ROWS), ceil_div(K, _COLUMNS)
