"""Causal grouped-query attention over packed documents, plain rows, or a KV cache.

Takes hidden states and an `AttentionPlan` made once per forward (angles, mask or boundaries); gives
hidden states. Two kernels do the same sum: SDPA with a mask (CPU, fp32), and variable-length flash
attention that reads document boundaries (CUDA, half precision).
Shapes: B rows, S new positions, T all positions, H query heads, K key/value heads, D head width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn

from mengya.models.attention_plan import AttentionPlan
from mengya.models.config import ModelConfig
from mengya.models.kv_cache import KVCache
from mengya.models.paged_cache import PagedStep
from mengya.models.rope import rotate

# torch 2.10 said is_causal=True, 2.11 and later say window_size=(-1, 0) for the same thing.
VARLEN_CAUSAL: dict[str, Any] = (
    {"window_size": (-1, 0)}
    if "window_size" in inspect.signature(varlen_attn).parameters
    else {"is_causal": True}
)


class RMSNorm(nn.Module):
    """x / rms(x) * weight (Zhang & Sennrich 2019, arXiv:1910.07467), in fp32; keeps x's dtype."""

    def __init__(self, size: int, eps: float, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size, device=device))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # The casts do nothing in fp32; under autocast CUDA makes them itself and the CPU only warns.
        normed = F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps)
        return normed.to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) with optional qk-norm."""

    def __init__(
        self, config: ModelConfig, layer: int, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.layer = layer
        self.slides = config.slides(layer)
        self.head_dim = config.head_width
        self.groups = config.num_attention_heads // config.num_key_value_heads
        hidden, bias = config.hidden_size, config.attention_bias
        q_width = config.num_attention_heads * self.head_dim
        kv_width = config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(hidden, q_width, bias=bias, device=device)
        self.k_proj = nn.Linear(hidden, kv_width, bias=bias, device=device)
        self.v_proj = nn.Linear(hidden, kv_width, bias=bias, device=device)
        self.o_proj = nn.Linear(q_width, hidden, bias=False, device=device)
        self.q_norm = self.k_norm = None
        if config.qk_norm:
            self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps, device)
            self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps, device)

    def forward(
        self, x: Tensor, plan: AttentionPlan, cache: KVCache | PagedStep | None = None
    ) -> Tensor:
        """[B, S, hidden] -> [B, S, hidden]."""
        B, S, _ = x.shape
        if self.slides and plan.sliding is not None:
            plan = plan.sliding
        q_BSHD = self.q_proj(x).view(B, S, -1, self.head_dim)
        k_BSKD = self.k_proj(x).view(B, S, -1, self.head_dim)
        v_BSKD = self.v_proj(x).view(B, S, -1, self.head_dim)
        if self.q_norm is not None and self.k_norm is not None:
            q_BSHD, k_BSKD = self.q_norm(q_BSHD), self.k_norm(k_BSKD)
        # The kernels want q and k in the dtype of v, whatever autocast made of the norms.
        q_BSHD = rotate(q_BSHD, plan.cos, plan.sin, v_BSKD.dtype)
        k_BSKD = rotate(k_BSKD, plan.cos, plan.sin, v_BSKD.dtype)
        if isinstance(cache, PagedStep):
            out = cache.attend(self.layer, q_BSHD, k_BSKD, v_BSKD)
        elif plan.halves is not None:
            out = attend_by_halves(self._attend, q_BSHD, k_BSKD, v_BSKD, plan.halves)
        else:
            out = self._attend(q_BSHD, k_BSKD, v_BSKD, plan, cache)
        return self.o_proj(out.reshape(B, S, -1))

    def _attend(
        self, q_BSHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, plan: AttentionPlan,
        cache: KVCache | None = None,
    ) -> Tensor:  # fmt: skip
        if plan.cu_seqlens is not None:
            return self._varlen(q_BSHD, k_BSKD, v_BSKD, plan.cu_seqlens, plan.window)
        q, k, v = (t.transpose(1, 2) for t in (q_BSHD, k_BSKD, v_BSKD))
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        return self._sdpa(q, k, v, plan)

    def _sdpa(self, q_BHSD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, plan: AttentionPlan) -> Tensor:
        if q_BHSD.shape[2] == 1:
            # One new token: its query heads stand in line as positions, no key is copied.
            q = q_BHSD.view(q_BHSD.shape[0], -1, self.groups, self.head_dim)
            out = F.scaled_dot_product_attention(q, k_BKTD, v_BKTD, attn_mask=plan.mask)
            return out.reshape(q_BHSD.shape).transpose(1, 2)
        k, v = _repeat_heads(k_BKTD, self.groups, 1), _repeat_heads(v_BKTD, self.groups, 1)
        out = F.scaled_dot_product_attention(
            q_BHSD, k, v, attn_mask=plan.mask, is_causal=plan.causal
        )
        return out.transpose(1, 2)

    def _varlen(
        self, q_BSHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, ends: Tensor, window: int | None
    ) -> Tensor:
        # Repeating keys by hand: torch 2.11's varlen_attn has no grouped heads.
        S = q_BSHD.shape[1]
        q = q_BSHD.flatten(0, 1)
        k = _repeat_heads(k_BSKD, self.groups, 2).flatten(0, 1)
        v = _repeat_heads(v_BSKD, self.groups, 2).flatten(0, 1)
        seen = VARLEN_CAUSAL if window is None else _window(window)
        out = varlen_attn(q, k, v, ends, ends, S, S, **seen)
        assert isinstance(out, Tensor)  # a pair only when return_aux is asked for
        return out


def _window(tokens: int) -> dict[str, Any]:
    return {"window_size": (tokens - 1, 0)}


def attend_by_halves(
    attend: Callable[[Tensor, Tensor, Tensor, AttentionPlan], Tensor],
    q_BSHD: Tensor,
    k_BSKD: Tensor,
    v_BSKD: Tensor,
    plans: tuple[AttentionPlan, AttentionPlan],
) -> Tensor:
    """The first half of the heads by one plan, the second by the other; [B, S, H, width of v]."""
    parts = zip(*(t.chunk(2, dim=2) for t in (q_BSHD, k_BSKD, v_BSKD)), plans, strict=True)
    return torch.cat([attend(q, k, v, plan) for q, k, v, plan in parts], dim=2)


def _repeat_heads(x: Tensor, times: int, dim: int) -> Tensor:
    """Each head `times` times in a row along `dim`."""
    if times == 1:
        return x
    expanded = x.unsqueeze(dim + 1).expand(*x.shape[: dim + 1], times, *x.shape[dim + 1 :])
    return expanded.flatten(dim, dim + 1)
