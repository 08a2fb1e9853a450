"""From the merged query, key and value product to rotated heads in one pass over memory (Triton).

Takes the product of a layer's q, k and v weights and the angles; gives q, k normalized (where the
model has qk-norm) and rotated, and v. The compiler alone needs seven passes forward and backward, a tenth
of a small model's training step. `split_norm_rotate_plain` is the reference in PyTorch.
Shapes: N tokens, H query heads, K key heads, A = H + 2K, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.kernels.rotary import rotate
from mengya.kernels.triton_available import has_triton
from mengya.runtime.integers import ceil_div

_HAS_TRITON = has_triton()
_ROWS = 16  # heads of one program's tile
_PROGRAMS = 132 * 8  # of the backward pass: each sums its own part of the norms' gradients


def split_norm_rotate_plain(
    qkv_NC: Tensor, q_weight: Tensor | None, k_weight: Tensor | None, cos: Tensor, sin: Tensor,
    heads: int, kv_heads: int, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The reference of `split_norm_rotate`, in any dtype and on any device."""
    N, dtype = qkv_NC.shape[0], qkv_NC.dtype
    D = qkv_NC.shape[1] // (heads + 2 * kv_heads)
    q, k, v = (
        t.view(N, -1, D) for t in qkv_NC.split([heads * D, kv_heads * D, kv_heads * D], dim=1)
    )
    q, k = q.float(), k.float()
    if q_weight is not None and k_weight is not None:
        q = F.rms_norm(q, (D,), q_weight.float(), eps)
        k = F.rms_norm(k, (D,), k_weight.float(), eps)
    cos, sin = cos.view(1, N, 1, -1), sin.view(1, N, 1, -1)
    q, k = (rotate(t[None], cos, sin, dtype)[0] for t in (q, k))
    return q, k, v.contiguous()


def split_norm_rotate(
    qkv_NC: Tensor, q_weight: Tensor | None, k_weight: Tensor | None, cos: Tensor, sin: Tensor,
    heads: int, kv_heads: int, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Heads ready for attention.

    Args:
        qkv_NC: [N, A * D], contiguous, half precision.
        q_weight, k_weight: [D] weights of the norms; None for a model without.
        cos, sin: N * D/2 angles in fp32, one row a token.

    Returns:
        q [N, H, D], k [N, K, D], v [N, K, D], contiguous, in the dtype of `qkv_NC`.
    """
    if not torch.is_grad_enabled() and not torch.compiler.is_compiling():
        # Decoding: the dispatch of a PyTorch operator takes the host longer than the launch.
        return _launch(qkv_NC, q_weight, k_weight, cos, sin, heads, kv_heads, eps)
    return torch.ops.mengya.split_norm_rotate(
        qkv_NC, q_weight, k_weight, cos, sin, heads, kv_heads, eps
    )


def is_supported(x: Tensor, head_dim: int, rotary_width: int) -> bool:
    """Whether there is a kernel: CUDA in half precision, every number of a head rotated."""
    half = x.dtype in (torch.bfloat16, torch.float16)
    rotated = rotary_width == head_dim and head_dim % 16 == 0
    return _HAS_TRITON and x.is_cuda and half and rotated


def _launch(
    qkv_NC: Tensor, q_weight: Tensor | None, k_weight: Tensor | None, cos: Tensor, sin: Tensor,
    heads: int, kv_heads: int, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    from triton import next_power_of_2  # pyright: ignore[reportMissingImports]

    from mengya.kernels import qkv_triton

    q, k, v = _like_heads(qkv_NC, heads, kv_heads)
    N, D = q.shape[0], q.shape[2]
    rows = N * (heads + 2 * kv_heads)
    norm = q_weight is not None
    kernel: Any = qkv_triton.forward
    kernel[(ceil_div(rows, _ROWS),)](
        qkv_NC, q_weight if norm else cos, k_weight if norm else cos, cos, sin, q, k, v,
        rows, eps, heads, kv_heads, D // 2, next_power_of_2(D // 2), _ROWS, norm,
    )  # fmt: skip
    return q, k, v


_forward = torch.library.custom_op("mengya::split_norm_rotate", _launch, mutates_args=())


@_forward.register_fake
def _(
    qkv_NC: Tensor, q_weight: Tensor | None, k_weight: Tensor | None, cos: Tensor, sin: Tensor,
    heads: int, kv_heads: int, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _like_heads(qkv_NC, heads, kv_heads)


@torch.library.custom_op("mengya::split_norm_rotate_backward", mutates_args=())
def _backward(
    dq: Tensor, dk: Tensor, dv: Tensor, qkv_NC: Tensor, q_weight: Tensor | None,
    k_weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of qkv_NC, and of both weights as [2, D] fp32."""
    from triton import next_power_of_2  # pyright: ignore[reportMissingImports]

    from mengya.kernels import qkv_triton

    heads, kv_heads, D = dq.shape[1], dk.shape[1], dq.shape[2]
    rows = dq.shape[0] * (heads + 2 * kv_heads)
    norm = q_weight is not None
    d_qkv = torch.empty_like(qkv_NC)
    programs = min(_PROGRAMS, ceil_div(rows, _ROWS))
    parts_P2D = torch.empty(programs if norm else 1, 2, D, device=dq.device)
    kernel: Any = qkv_triton.backward
    kernel[(programs,)](
        dq, dk, dv, qkv_NC, q_weight if norm else cos, k_weight if norm else cos, cos, sin,
        d_qkv, parts_P2D, rows, eps, heads, kv_heads, D // 2, next_power_of_2(D // 2),
        _ROWS, norm,
    )  # fmt: skip
    return d_qkv, parts_P2D.sum(0)


@_backward.register_fake
def _(
    dq: Tensor, dk: Tensor, dv: Tensor, qkv_NC: Tensor, q_weight: Tensor | None,
    k_weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(qkv_NC), cos.new_empty(2, dq.shape[2])


def _like_heads(qkv_NC: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    N = qkv_NC.shape[0]
    D = qkv_NC.shape[1] // (heads + 2 * kv_heads)
    return (
        qkv_NC.new_empty(N, heads, D),
        qkv_NC.new_empty(N, kv_heads, D),
        qkv_NC.new_empty(N, kv_heads, D),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    qkv_NC, q_weight, k_weight, cos, sin, _, _, eps = inputs
    ctx.save_for_backward(qkv_NC, q_weight, k_weight, cos, sin)
    ctx.eps = eps


def _autograd(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor) -> tuple[Tensor | None, ...]:
    qkv_NC, q_weight, k_weight, cos, sin = ctx.saved_tensors
    d_qkv, d_weights = torch.ops.mengya.split_norm_rotate_backward(
        dq.contiguous(), dk.contiguous(), dv.contiguous(), qkv_NC, q_weight, k_weight, cos, sin,
        ctx.eps,
    )  # fmt: skip
    d_q = d_k = None
    if q_weight is not None:
        d_q, d_k = d_weights[0].to(q_weight.dtype), d_weights[1].to(k_weight.dtype)
    return d_qkv, d_q, d_k, None, None, None, None, None


_forward.register_autograd(_autograd, setup_context=_keep)
