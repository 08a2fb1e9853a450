"""Causal grouped-query attention over packed documents, plain rows, or a KV cache.

Takes hidden states and an `AttentionPlan` made once per forward (angles, mask or boundaries); gives
hidden states. Two ways give the same sum: SDPA with a mask (CPU, fp32), and flash attention that reads
document boundaries (document_attention.py; CUDA, half precision).
Shapes: B rows, S new positions, T all positions, H query heads, K key/value heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mengya.kernels.attention.document import attend_documents
from mengya.kernels.linear import merged_linear, merged_product, merges
from mengya.kernels.qkv import fused_qkv_runs, split_norm_rotate
from mengya.kernels.rotary import rotate
from mengya.models.attention_mask import AttentionPlan
from mengya.models.cache.kv import KVCache
from mengya.models.cache.paged import PagedStep
from mengya.models.config.model import ModelConfig
from mengya.models.norm import RMSNorm


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
        q_BSHD, k_BSKD, v_BSKD = self._heads(x, plan)
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
        """[B, S, H, D]: one plan for all the heads given."""
        if plan.documents is not None:
            return attend_documents(q_BSHD, k_BSKD, v_BSKD, plan.documents)
        q, k, v = (t.transpose(1, 2) for t in (q_BSHD, k_BSKD, v_BSKD))
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        return self._sdpa(q, k, v, plan)

    def _heads(self, x: Tensor, plan: AttentionPlan) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, normalized and turned, and values: [B, S, heads, D], of one dtype."""
        B, S, _ = x.shape
        projections = (self.q_proj, self.k_proj, self.v_proj)
        if (
            (plan.documents is not None or not torch.is_grad_enabled())
            and not plan.cos.requires_grad  # CLEX learns through the angles, the kernel does not
            and merges(x, *projections)
            and fused_qkv_runs(x, self.head_dim, 2 * plan.cos.shape[-1])
        ):
            qkv = merged_product(x, *projections).flatten(0, 1)
            q_weight, k_weight, eps = None, None, 0.0
            if self.q_norm is not None and self.k_norm is not None:
                q_weight, k_weight, eps = self.q_norm.weight, self.k_norm.weight, self.q_norm.eps
            cos, sin = (t.expand(B, -1, -1, -1).contiguous() for t in (plan.cos, plan.sin))
            kv_heads = self.k_proj.out_features // self.head_dim
            heads = split_norm_rotate(
                qkv, q_weight, k_weight, cos, sin, self.groups * kv_heads, kv_heads, eps
            )
            q, k, v = (t.unflatten(0, (B, S)) for t in heads)
            return q, k, v
        q, k, v = (t.view(B, S, -1, self.head_dim) for t in merged_linear(x, *projections))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        # The kernels want q and k in the dtype of v, whatever autocast made of the norms.
        q, k = (rotate(t, plan.cos, plan.sin, v.dtype) for t in (q, k))
        return q, k, v

    def _sdpa(self, q_BHSD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, plan: AttentionPlan) -> Tensor:
        if q_BHSD.shape[2] == 1:
            # One new token: its query heads stand in line as positions, no key is copied.
            q = q_BHSD.view(q_BHSD.shape[0], -1, self.groups, self.head_dim)
            out = F.scaled_dot_product_attention(q, k_BKTD, v_BKTD, attn_mask=plan.mask)
            return out.reshape(q_BHSD.shape).transpose(1, 2)
        k, v = _repeat_heads(k_BKTD, self.groups), _repeat_heads(v_BKTD, self.groups)
        out = F.scaled_dot_product_attention(
            q_BHSD, k, v, attn_mask=plan.mask, is_causal=plan.causal
        )
        return out.transpose(1, 2)


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


def _repeat_heads(x_BKTD: Tensor, times: int) -> Tensor:
    """Each head `times` times in a row: [B, K * times, T, D]."""
    if times == 1:
        return x_BKTD
    return x_BKTD.unsqueeze(2).expand(-1, -1, times, -1, -1).flatten(1, 2)
