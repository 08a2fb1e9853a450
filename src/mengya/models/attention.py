"""Causal grouped-query attention over packed documents, plain rows, or a cache.

Takes hidden states and an `AttentionPlan` made once per forward pass; gives hidden states.
Shapes: B rows, S new positions, D head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mengya.kernels import qkv
from mengya.kernels.linear import can_merge, merged_linear, merged_product
from mengya.kernels.rotary import rotate
from mengya.models.attention_mask import AttentionPlan
from mengya.models.cache.protocol import Cache
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

    def forward(self, x: Tensor, plan: AttentionPlan, cache: Cache | None = None) -> Tensor:
        """[B, S, hidden] -> [B, S, hidden]."""
        B, S, _ = x.shape
        pattern = plan.sliding if self.slides else plan.full
        q, k, v = self._heads(x, plan.cos, plan.sin, pattern.packed)
        out = (
            pattern.attend(q, k, v) if cache is None else cache.attend(self.layer, q, k, v, pattern)
        )
        return self.o_proj(out.reshape(B, S, -1))

    def _heads(
        self, x: Tensor, cos: Tensor, sin: Tensor, packed: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, normalized and rotated, and values: [B, S, heads, D], of one dtype."""
        B, S, _ = x.shape
        projections = (self.q_proj, self.k_proj, self.v_proj)
        if (
            (packed or not torch.is_grad_enabled())
            and not cos.requires_grad  # the kernel has no gradient for learned angles
            and qkv.is_supported(x, self.head_dim, 2 * cos.shape[-1])
            and can_merge(x, *projections)
        ):
            product = merged_product(x, *projections).flatten(0, 1)
            q_weight, k_weight, eps = None, None, 0.0
            if self.q_norm is not None and self.k_norm is not None:
                q_weight, k_weight, eps = self.q_norm.weight, self.k_norm.weight, self.q_norm.eps
            cos, sin = (t.expand(B, -1, -1, -1).contiguous() for t in (cos, sin))
            kv_heads = self.k_proj.out_features // self.head_dim
            heads = qkv.split_norm_rotate(
                product, q_weight, k_weight, cos, sin, self.groups * kv_heads, kv_heads, eps
            )
            q, k, v = (t.unflatten(0, (B, S)) for t in heads)
            return q, k, v
        q, k, v = (t.view(B, S, -1, self.head_dim) for t in merged_linear(x, *projections))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        # Attention wants q and k in the dtype of v, whatever autocast made of the norms.
        q, k = (rotate(t, cos, sin, v.dtype) for t in (q, k))
        return q, k, v
