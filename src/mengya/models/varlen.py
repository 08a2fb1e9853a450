"""Causal attention of packed documents by their boundaries, through the fastest kernel installed.

FlashAttention 4 (the extra `flash`, Hopper and Blackwell) where it is there, else FlashAttention 2,
which torch brings. Both compute the same; grouped heads are shared inside the kernel.
Shapes: T positions of all rows, H query heads, K key heads, D head width, N documents.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import warnings
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

# torch 2.10 said is_causal=True, 2.11 and later say window_size=(-1, 0) for the same thing; 2.13 wants
# to be told of grouped heads, before it took them as they came.
_NAMES = inspect.signature(varlen_attn).parameters
_CAUSAL: dict[str, Any] = (
    {"window_size": (-1, 0)} if "window_size" in _NAMES else {"is_causal": True}
)
_GROUPED: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in _NAMES else {}


def varlen_attention(
    q_THD: Tensor,
    k_TKD: Tensor,
    v_TKD: Tensor,
    cu_seqlens: Tensor,
    longest: int,
    scale: float | None = None,
) -> Tensor:
    """Each position attends to itself and what came before in its own document; [T, H, D].

    Args:
        q_THD, k_TKD, v_TKD: half precision on CUDA, D a multiple of 8 up to 256.
        cu_seqlens: [N + 1] int32 boundaries; empty documents may stand at the end.
        longest: no document is longer.
        scale: of the scores; None: D ** -0.5.
    """
    if has_flash4(q_THD.device):
        scale = q_THD.shape[-1] ** -0.5 if scale is None else scale
        out, _ = torch.ops.mengya.flash4_varlen(q_THD, k_TKD, v_TKD, cu_seqlens, longest, scale)
        return out
    out = varlen_attn(
        q_THD, k_TKD, v_TKD, cu_seqlens, cu_seqlens, longest, longest,
        scale=scale, **_CAUSAL, **_GROUPED,
    )  # fmt: skip
    assert isinstance(out, Tensor)  # a pair only when return_aux is asked for
    return out


@torch.compiler.assume_constant_result
@functools.cache
def has_flash4(device: torch.device) -> bool:
    """Whether FlashAttention 4 can be imported and the GPU is one of those it is written for."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] not in (9, 10):
        return False
    try:
        _flash4()
    except ImportError as error:
        if error.name not in ("flash_attn", "flash_attn.cute"):
            warnings.warn(f"FlashAttention 4 is installed but not whole: {error}", stacklevel=2)
        return False
    return True


def _flash4() -> ModuleType:
    return importlib.import_module("flash_attn.cute.interface")


@torch.library.custom_op("mengya::flash4_varlen", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, longest: int, scale: float
) -> tuple[Tensor, Tensor]:
    out, lse, *_ = _flash4()._flash_attn_fwd(
        q, k, v, cu_seqlens_q=cu_seqlens, cu_seqlens_k=cu_seqlens,
        max_seqlen_q=longest, max_seqlen_k=longest,
        softmax_scale=scale, causal=True, return_lse=True,
    )  # fmt: skip
    return out, lse


@_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, longest: int, scale: float
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty(q.shape[1], q.shape[0], dtype=torch.float32)


@torch.library.custom_op("mengya::flash4_varlen_backward", mutates_args=())
def _backward(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    cu_seqlens: Tensor, longest: int, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    dq, dk, dv, *_ = _flash4()._flash_attn_bwd(
        q, k, v, out, d_out, lse, cu_seqlens_q=cu_seqlens, cu_seqlens_k=cu_seqlens,
        max_seqlen_q=longest, max_seqlen_k=longest, softmax_scale=scale, causal=True,
    )  # fmt: skip
    return dq, dk, dv


@_backward.register_fake
def _(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    cu_seqlens: Tensor, longest: int, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, cu_seqlens, ctx.longest, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, cu_seqlens)


def _autograd(ctx: Any, d_out: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, cu_seqlens = ctx.saved_tensors
    gradients = torch.ops.mengya.flash4_varlen_backward(
        d_out.contiguous(), q, k, v, out, lse, cu_seqlens, ctx.longest, ctx.scale
    )
    return *gradients, None, None, None


_forward.register_autograd(_autograd, setup_context=_keep)
