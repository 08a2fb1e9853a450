"""Attention with a mask over all keys (SDPA): any device and dtype, and the reference of the other kernels.

Shapes: B rows, S new positions, T all positions, H query heads, K key heads, D width of queries and
keys, V width of values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class DensePattern:
    """
    Attributes:
        mask: [B, 1, S, T], added to the scores (0 or -inf); None for no mask.
        causal: plain causal rows, S == T; never together with `mask`.
    """

    mask: Tensor | None = None
    causal: bool = False
    packed: ClassVar[bool] = False

    def attend(
        self, q_BSHD: Tensor, k_BTKD: Tensor, v_BTKV: Tensor, scale: float | None = None
    ) -> Tensor:
        """As `AttentionPattern.attend`."""
        B, S, H, D = q_BSHD.shape
        groups = H // k_BTKD.shape[2]
        k, v = k_BTKD.transpose(1, 2), v_BTKV.transpose(1, 2)
        if S == 1:
            # One new token: the query heads of a group take the place of positions, no key is copied.
            q_BKGD = q_BSHD.reshape(B, -1, groups, D)
            out = F.scaled_dot_product_attention(q_BKGD, k, v, attn_mask=self.mask, scale=scale)
            return out.reshape(B, 1, H, -1)
        k, v = repeat_heads(k, groups), repeat_heads(v, groups)
        out = F.scaled_dot_product_attention(
            q_BSHD.transpose(1, 2), k, v, attn_mask=self.mask, is_causal=self.causal, scale=scale
        )
        return out.transpose(1, 2)


def row_pattern(
    past: int,
    S: int,
    padding: Tensor | None,
    window: int | None,
    dtype: torch.dtype,
    device: torch.device,
) -> DensePattern:
    """One document per row: S new tokens, each of which sees itself and all earlier ones.

    Args:
        past: tokens before the new ones, T = past + S.
        padding: [B] int64, how many positions are hidden at the start of each row.
        window: how many positions each sees, its own included; None: all.
    """
    if window is not None and window >= past + S:  # nothing is outside
        window = None
    if padding is None and window is None and (S == 1 or past == 0):
        return DensePattern(causal=S > 1)
    keys = torch.arange(past + S, device=device)
    queries = torch.arange(past, past + S, device=device)[:, None]
    seen = (keys <= queries)[None]
    if window is not None:
        seen = seen & (keys > queries - window)
    if padding is not None:  # a hidden position sees itself: a row of -inf would be NaN
        seen = seen & (keys >= padding[:, None, None]) | (keys == queries)
    return DensePattern(_additive(seen, dtype))


def document_mask(document_ids: Tensor, dtype: torch.dtype, window: int | None) -> DensePattern:
    """Each token sees itself and the earlier ones of its own document; padding sees padding.

    Args:
        document_ids: [B, S] int64.
    """
    S = document_ids.shape[1]
    same = document_ids[:, :, None] == document_ids[:, None, :]
    before = torch.ones(S, S, dtype=torch.bool, device=document_ids.device).tril()
    if window is not None:
        before = before.triu(1 - window)
    return DensePattern(_additive(same & before, dtype))


def repeat_heads(x_BKTD: Tensor, times: int) -> Tensor:
    """Each head `times` times in a row: [B, K * times, T, D]."""
    if times == 1:
        return x_BKTD
    return x_BKTD.unsqueeze(2).expand(-1, -1, times, -1, -1).flatten(1, 2)


def _additive(seen_BST: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, 1, S, T], 0 where seen and -inf elsewhere: SDPA would convert booleans in every layer."""
    mask = torch.zeros(seen_BST.shape, dtype=dtype, device=seen_BST.device)
    return mask.masked_fill_(~seen_BST, float("-inf"))[:, None]
