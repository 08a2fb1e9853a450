"""Causal grouped-query attention over packed documents, plain rows, or a KV cache.

Takes hidden states and an `AttentionPlan` made once per forward (angles, mask or boundaries); gives
hidden states. Two kernels do the same sum: SDPA with a mask (CPU, fp32), and variable-length flash
attention that reads document boundaries (CUDA, half precision).
Shapes: B rows, S new positions, T all positions, H query heads, K key/value heads, D head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mengya.models.config import ModelConfig
from mengya.models.fused_qkv import fused_qkv_runs, split_norm_rotate
from mengya.models.kv_cache import KVCache
from mengya.models.merged_linear import merged_linear, merged_product, merges
from mengya.models.paged_cache import PagedStep
from mengya.models.rope import rotary_angles, rotate
from mengya.models.varlen import varlen_attention


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


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What every layer shares in one forward.

    Attributes:
        cos, sin: [B or 1, S, 1, D/2].
        mask: [B, 1, S, T], added to the scores (0 or -inf), or None for no mask.
        causal: plain causal rows, S == T; never together with `mask`.
        cu_seqlens: [N + 1] int32 boundaries in the B*S flattened positions: use the varlen kernel.
    """

    cos: Tensor
    sin: Tensor
    mask: Tensor | None = None
    causal: bool = False
    cu_seqlens: Tensor | None = None


def plan_attention(
    config: ModelConfig,
    input_ids: Tensor,
    position_ids: Tensor | None,
    document_ids: Tensor | None,
    cu_seqlens: Tensor | None,
    cache: KVCache | PagedStep | None,
    dtype: torch.dtype,
) -> AttentionPlan:
    """Choose the kernel and build its mask once; shapes as in `CausalLM.forward`."""
    if isinstance(cache, PagedStep):  # it knows the rest itself
        positions = cache.position_ids if position_ids is None else position_ids
        return AttentionPlan(*rotary_angles(positions, config))
    S = input_ids.shape[1]
    past = cache.length if cache is not None else 0
    padding = cache.left_padding if cache is not None else None
    if position_ids is None:
        position_ids = torch.arange(past, past + S, device=input_ids.device)[None]
        if padding is not None:
            position_ids = (position_ids - padding[:, None]).clamp(min=0)
    cos, sin = rotary_angles(position_ids, config)
    if document_ids is not None:
        if cu_seqlens is not None and _varlen_runs(config, input_ids, dtype):
            return AttentionPlan(cos, sin, cu_seqlens=cu_seqlens)
        return AttentionPlan(cos, sin, mask=_document_mask(document_ids, dtype))
    if padding is None and (S == 1 or past == 0):
        return AttentionPlan(cos, sin, causal=S > 1)
    return AttentionPlan(cos, sin, mask=_cached_mask(padding, past, S, input_ids.device, dtype))


def _varlen_runs(config: ModelConfig, input_ids: Tensor, dtype: torch.dtype) -> bool:
    half = dtype in (torch.bfloat16, torch.float16)
    width = max(config.head_width, config.v_head_dim or 0)
    return input_ids.is_cuda and half and width % 8 == 0 and width <= 256


def _document_mask(document_ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Each token sees itself and what came before in its own document; padding sees padding."""
    S = document_ids.shape[1]
    same = document_ids[:, :, None] == document_ids[:, None, :]
    before = torch.ones(S, S, dtype=torch.bool, device=document_ids.device).tril()
    return _additive(same & before, dtype)


def _cached_mask(
    padding: Tensor | None, past: int, S: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Each new token sees all earlier ones but the left padding, and always itself."""
    keys = torch.arange(past + S, device=device)
    queries = torch.arange(past, past + S, device=device)[:, None]
    seen = (keys <= queries)[None]
    if padding is not None:
        seen = seen & (keys >= padding[:, None, None]) | (keys == queries)
    return _additive(seen, dtype)


def _additive(seen_BST: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where seen, -inf elsewhere: SDPA would otherwise turn booleans into this in every layer."""
    mask = torch.zeros(seen_BST.shape, dtype=dtype, device=seen_BST.device)
    return mask.masked_fill_(~seen_BST, float("-inf"))[:, None]


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) with optional qk-norm."""

    def __init__(
        self, config: ModelConfig, layer: int, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.layer = layer
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
        q_BSHD, k_BSKD, v_BSKD = self._heads(x, plan)
        if isinstance(cache, PagedStep):
            out = cache.attend(self.layer, q_BSHD, k_BSKD, v_BSKD)
        elif plan.cu_seqlens is not None:
            q, k, v = (t.flatten(0, 1) for t in (q_BSHD, k_BSKD, v_BSKD))
            out = varlen_attention(q, k, v, plan.cu_seqlens, S)
        else:
            q, k, v = (t.transpose(1, 2) for t in (q_BSHD, k_BSKD, v_BSKD))
            if cache is not None:
                k, v = cache.append(self.layer, k, v)
            out = self._sdpa(q, k, v, plan)
        return self.o_proj(out.reshape(B, S, -1))

    def _heads(self, x: Tensor, plan: AttentionPlan) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, normalized and turned, and values: [B, S, heads, D], of one dtype."""
        B, S, _ = x.shape
        projections = (self.q_proj, self.k_proj, self.v_proj)
        if (
            plan.cu_seqlens is not None
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
        k, v = _repeat_heads(k_BKTD, self.groups, 1), _repeat_heads(v_BKTD, self.groups, 1)
        out = F.scaled_dot_product_attention(
            q_BHSD, k, v, attn_mask=plan.mask, is_causal=plan.causal
        )
        return out.transpose(1, 2)


def _repeat_heads(x: Tensor, times: int, dim: int) -> Tensor:
    """Each head `times` times in a row along `dim`."""
    if times == 1:
        return x
    expanded = x.unsqueeze(dim + 1).expand(*x.shape[: dim + 1], times, *x.shape[dim + 1 :])
    return expanded.flatten(dim, dim + 1)
