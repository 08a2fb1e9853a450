"""A SwiGLU layer whose six products run in fp8, as arXiv:2209.05433 names its formats.

Takes hidden states in bf16 or fp32 and fp32 or bf16 weights; gives the dtype of the hidden states.
Values and weights are e4m3 (3 bits of mantissa), gradients of gate and up e5m2 (twice the range).
A number is its 8 bits times a scale. Weights have one scale each, found anew at every call, and every
token has its own: so a token with huge values costs no other its precision, and nothing is remembered
between steps. A weight's gradient adds tokens up and cannot have a scale a token in one factor; what is
differentiated is therefore the product of the 8-bit rows, and the chain rule hands the scale over to
the other factor. `gate * up` and its gradient are computed in fp32 in between, by Triton on CUDA
(fp8_kernels.py), by the plain functions below elsewhere. The kernels are no custom ops: the compiler
launches them itself, and the host is not held up by the dispatcher.
Shapes: N tokens, H hidden, F width. `turned8` is a tensor's transpose, contiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F_
from torch import Tensor

from mengya.kernels import swiglu as fused_swiglu

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
_E4M3_MOST, _E5M2_MOST = 448.0, 57_344.0
_LEAST_SCALE = 1e-30  # of a row of zeros
_D_MOST = 2.0**13  # what the largest number of a gradient becomes in e5m2, which ends at 2^-16
_ROWS, _COLUMNS, _WARPS = 64, 128, 8  # of one program: as fast as any of twenty others on an H100
MULTIPLE = 16  # of every width: tensor cores take nothing else


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
    """Gives bf16, as products with a scale for every row do."""

    @staticmethod
    def forward(ctx: Any, x_NH: Tensor, gate_FH: Tensor, up_FH: Tensor, down_HF: Tensor) -> Tensor:
        x_scale_N = _row_scale(x_NH)
        gate_up_scale = torch.maximum(_scale(gate_FH), _scale(up_FH))
        down_scale = _scale(down_HF)
        hidden_scale_N = _hidden_scale(x_NH, gate_FH, up_FH)
        x8_NH, x8_HN = quantize([x_NH], x_scale_N)
        gate_up8_GH, gate_up8_HG = quantize([gate_FH, up_FH], gate_up_scale)  # G = 2F
        down8_HF, down8_FH = quantize([down_HF], down_scale)
        # Without x_scale_N, by which `swiglu` multiplies.
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
        # Turned, it has hidden_scale_N in it, so that no weight's gradient needs that any more.
        d_scale = (d_scale_N * hidden_scale_N).amax() * (_E4M3_MOST / _D_MOST)
        d_scale = d_scale.clamp_min(_LEAST_SCALE)
        d8_NH, d8_HN = quantize([d_NH], d_scale_N, d_scale / hidden_scale_N)
        # Times d_scale_N, this and what is made of it are the gradients in their true size.
        d_hidden_NF = _product(d8_NH, down8_FH, down_scale, dtype, short=True)
        by_token_N = d_scale_N * x_scale_N
        most = by_token_N.amax()
        d_gate_up8_NG, d_gate_up8_GN = swiglu_backward(
            d_hidden_NF, gate_up_NG, x_scale_N, by_token_N / most.clamp_min(_LEAST_SCALE)
        )
        d_x_NH = _product(d_gate_up8_NG, gate_up8_HG, gate_up_scale, dtype) * d_scale_N[:, None]
        if not any(ctx.needs_input_grad[1:]):  # frozen, under an adapter of other layers
            return d_x_NH.to(dtype), None, None, None
        d_down_HF = _product(d8_HN, hidden8_FN, d_scale, ctx.weight_dtype)
        d_gate_up_GH = _product(d_gate_up8_GN, x8_HN, most, ctx.weight_dtype)
        d_gate_FH, d_up_FH = d_gate_up_GH.chunk(2)
        return d_x_NH.to(dtype), d_gate_FH, d_up_FH, d_down_HF


def _product(
    a8_MK: Tensor, b8_NK: Tensor, scale: Tensor, dtype: torch.dtype, short: bool = False
) -> Tensor:
    """scale * a8 @ b8.T, [M, N]; sums in fp32.

    Args:
        scale: a scalar, or [M] (dtype bf16 alone): one of every row.
        short: the sums are over features, and tensor cores may add them up in their own 22 bits: of
            2,432 numbers off by 1e-3 to 4e-3, where e4m3 itself is by 4e-2. Of 65,536 tokens by up to 2e-1.
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
    """[N] fp32: of every row, what its largest e4m3 number is to be multiplied by."""
    return (x_NH.abs().amax(-1).float() / _E4M3_MOST).clamp_min(_LEAST_SCALE)


def _scale(weight: Tensor) -> Tensor:
    """The same of a whole tensor, a scalar."""
    return (weight.abs().amax().float() / _E4M3_MOST).clamp_min(_LEAST_SCALE)


def _hidden_scale(x_NH: Tensor, gate_FH: Tensor, up_FH: Tensor) -> Tensor:
    """[N] fp32: of every row of silu(gate(x)) * up(x), without its numbers.

    By Cauchy and Schwarz none is larger than |x|^2 |gate row| |up row|. Most are some hundred times
    smaller, which leaves them well inside e4m3's 2^17.
    """
    lengths_F = torch.linalg.vector_norm(gate_FH, dim=-1) * torch.linalg.vector_norm(up_FH, dim=-1)
    most_N = x_NH.float().square().sum(-1) * lengths_F.amax().float()
    return (most_N / _E4M3_MOST).clamp_min(_LEAST_SCALE)


def quantize(
    parts: Sequence[Tensor], scale: Tensor, turned_scale: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """parts (rows end to end: [N, K]) / scale as e4m3, and its transpose [K, N].

    Args:
        scale: fp32, [N] with one part, or a scalar.
        turned_scale: alike: the transpose is parts / turned_scale instead, as e5m2.
    """
    if not parts[0].is_cuda:
        return quantize_plain(parts, scale, turned_scale)
    from mengya.kernels.fp8 import swiglu_triton as fp8_kernels

    N, K = sum(len(part) for part in parts), parts[0].shape[1]
    rows8 = parts[0].new_empty(N, K, dtype=E4M3)
    turned8 = parts[0].new_empty(K, N, dtype=E4M3 if turned_scale is None else E5M2)
    turned, at = scale if turned_scale is None else turned_scale, 0
    for part in parts:
        kernel: Any = fp8_kernels.quantize
        kernel[_grid(len(part), K)](
            part.contiguous(), scale, turned, rows8, turned8, at, len(part), K, N,
            scale.dim(), turned.dim(), _ROWS, _COLUMNS, num_warps=_WARPS,
        )  # fmt: skip
        at += len(part)
    return rows8, turned8


def quantize_plain(
    parts: Sequence[Tensor], scale: Tensor, turned_scale: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`quantize` in PyTorch."""
    x_NK = torch.cat(list(parts)).float()
    rows8 = (x_NK / scale[..., None]).to(E4M3)
    if turned_scale is None:
        return rows8, rows8.T.contiguous()
    return rows8, (x_NK / turned_scale[..., None]).to(E5M2).T.contiguous()


def swiglu(gate_up_NG: Tensor, x_scale_N: Tensor, scale_N: Tensor) -> tuple[Tensor, Tensor]:
    """silu(gate) * up / scale_N of gate_up * x_scale_N: as e4m3 [N, F], and its transpose."""
    if not gate_up_NG.is_cuda:
        return swiglu_plain(gate_up_NG, x_scale_N, scale_N)
    from mengya.kernels.fp8 import swiglu_triton as fp8_kernels

    N, F = gate_up_NG.shape[0], gate_up_NG.shape[1] // 2
    hidden8_NF = gate_up_NG.new_empty(N, F, dtype=E4M3)
    hidden8_FN = gate_up_NG.new_empty(F, N, dtype=E4M3)
    kernel: Any = fp8_kernels.forward
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
    d_hidden_NF: Tensor, gate_up_NG: Tensor, x_scale_N: Tensor, turned_factor_N: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient of gate and up as e5m2 [N, 2F], and its transpose with every token times its factor."""
    if not d_hidden_NF.is_cuda:
        return swiglu_backward_plain(d_hidden_NF, gate_up_NG, x_scale_N, turned_factor_N)
    from mengya.kernels.fp8 import swiglu_triton as fp8_kernels

    N, F = d_hidden_NF.shape
    d8_NG = gate_up_NG.new_empty(N, 2 * F, dtype=E5M2)
    d8_GN = gate_up_NG.new_empty(2 * F, N, dtype=E5M2)
    kernel: Any = fp8_kernels.backward
    kernel[_grid(N, F)](
        d_hidden_NF, gate_up_NG, x_scale_N, turned_factor_N, d8_NG, d8_GN, N, F,
        _ROWS, _COLUMNS, num_warps=_WARPS,
    )  # fmt: skip
    return d8_NG, d8_GN


def swiglu_backward_plain(
    d_hidden_NF: Tensor, gate_up_NG: Tensor, x_scale_N: Tensor, turned_factor_N: Tensor
) -> tuple[Tensor, Tensor]:
    """`swiglu_backward` in PyTorch."""
    gate, up = (gate_up_NG.float() * x_scale_N[:, None]).chunk(2, dim=-1)
    d, sigmoid = d_hidden_NF.float(), gate.sigmoid()
    d_gate_up = torch.cat([d * up * sigmoid * (1 + gate * (1 - sigmoid)), d * gate * sigmoid], -1)
    d_gate_up = d_gate_up.clamp(-_E5M2_MOST, _E5M2_MOST)
    return d_gate_up.to(E5M2), (d_gate_up * turned_factor_N[:, None]).to(E5M2).T.contiguous()


def _grid(N: int, K: int) -> tuple[int, int]:
    return -(-N // _ROWS), -(-K // _COLUMNS)
