"""Causal attention of packed documents by their boundaries (FlashAttention 2, which torch brings).

Shapes: T positions of all rows, H query heads, K key heads, D head width, N documents.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

if torch.version.cuda is not None:  # it imports the compiler: a second that a CPU would waste
    from torch.nn.attention.varlen import varlen_attn
else:

    def varlen_attn(*_: Any, **__: Any) -> Tensor | tuple[Tensor, Tensor]:
        raise NotImplementedError("there is no CUDA in this build of PyTorch")


# torch 2.10 has is_causal=True, 2.11 and later window_size=(-1, 0) for the same thing; 2.13 wants
# enable_gqa for grouped heads, earlier versions took them without.
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
    window: int | None = None,
) -> Tensor:
    """Each position attends to itself and what came before in its own document; [T, H, D].

    Args:
        q_THD, k_TKD, v_TKD: half precision on CUDA, D a multiple of 8 up to 256.
        cu_seqlens: [N + 1] int32 boundaries. Empty documents at the end change nothing, but the kernel
            starts programs for them.
        longest: no document is longer.
        scale: of the scores; None: D ** -0.5.
        window: how many positions each sees, its own included; None: all before it.
    """
    seen = _CAUSAL if window is None else {"window_size": (window - 1, 0)}
    out = varlen_attn(
        q_THD, k_TKD, v_TKD, cu_seqlens, cu_seqlens, longest, longest,
        scale=scale, **seen, **_GROUPED,
    )  # fmt: skip
    assert isinstance(out, Tensor)  # a pair only when return_aux is asked for
    return out
