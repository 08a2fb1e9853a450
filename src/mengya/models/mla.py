"""Multi-head latent attention: keys and values made of one small latent per token.

DeepSeek-V2 (arXiv:2405.04434, section 2.1), with the parameter names of transformers' DeepseekV3:

    c = norm(W_a x)[:rank],  k_rope = RoPE(rest of W_a x), one for all heads;  [k_nope; v] = W_b c

A cache holds c and k_rope alone, rank + rope numbers per token. One new token attends to these
directly: W_b is absorbed into the query and the output, no key is ever expanded.
Shapes: B rows, S new positions, T all positions, H heads, D = nope + rope, C = rank + rope.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mengya.kernels.attention.pattern import AttentionPattern
from mengya.kernels.rotary import rotate
from mengya.models.attention_mask import AttentionPlan
from mengya.models.cache.protocol import Cache
from mengya.models.config.model import ModelConfig
from mengya.models.norm import RMSNorm
from mengya.models.quantized.in_training import RoundedLinear

# transformers' DeepseekV3 normalizes its latents with this, whatever rms_norm_eps
_LATENT_EPS = 1e-6


class LatentAttention(nn.Module):
    """Multi-head latent attention; queries through a latent of their own where q_lora_rank is set."""

    def __init__(
        self, config: ModelConfig, layer: int, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        rank, nope, v_width = config.kv_lora_rank, config.qk_nope_head_dim, config.v_head_dim
        assert (
            rank is not None and nope is not None and v_width is not None
        )  # checked by the configuration
        self.layer = layer
        self.heads, self.rank, self.v_width = config.num_attention_heads, rank, v_width
        self.nope, self.rope, self.width = nope, config.rotary_width, config.head_width
        self.scale = self.width**-0.5 * config.rope_parameters.mla_score_factor
        hidden, q_rank = config.hidden_size, config.q_lora_rank

        def linear(into: int, out: int) -> nn.Linear:
            return nn.Linear(into, out, bias=False, device=device)

        self.q_proj = self.q_a_proj = self.q_a_layernorm = self.q_b_proj = None
        if q_rank is None:
            self.q_proj = linear(hidden, self.heads * self.width)
        else:
            self.q_a_proj = linear(hidden, q_rank)
            self.q_a_layernorm = RMSNorm(q_rank, _LATENT_EPS, device)
            self.q_b_proj = linear(q_rank, self.heads * self.width)
        self.kv_a_proj_with_mqa = linear(hidden, rank + self.rope)
        self.kv_a_layernorm = RMSNorm(rank, _LATENT_EPS, device)
        self.kv_b_proj = linear(rank, self.heads * (nope + v_width))
        self.o_proj = linear(self.heads * v_width, hidden)

    def forward(self, x: Tensor, plan: AttentionPlan, cache: Cache | None = None) -> Tensor:
        """[B, S, hidden] -> [B, S, hidden]."""
        B, S, _ = x.shape
        q_BSHD = self._queries(x).view(B, S, self.heads, self.width)
        q_nope, q_rope = q_BSHD.split([self.nope, self.rope], dim=-1)
        latent, k_rope = self.kv_a_proj_with_mqa(x).split([self.rank, self.rope], dim=-1)
        dtype = latent.dtype
        latent = self.kv_a_layernorm(latent)
        q_rope = rotate(_pairs_to_halves(q_rope), plan.cos, plan.sin, dtype)
        k_rope = rotate(_pairs_to_halves(k_rope[:, :, None]), plan.cos, plan.sin, dtype)
        new_BSC = torch.cat((latent, k_rope[:, :, 0]), dim=-1)
        if cache is None:
            out = self._expanded(q_nope, q_rope, new_BSC, plan.full)
        elif (seen_BTC := cache.expandable_latents(self.layer, new_BSC)) is not None:
            out = self._expanded(q_nope, q_rope, seen_BTC, plan.full)
        else:
            q_BSHC = self._latent_queries(q_nope, q_rope)
            latents = cache.attend_latents(
                self.layer, q_BSHC, new_BSC, self.rank, plan.full, self.scale
            )
            out = self._values(latents)
        return self.o_proj(out.reshape(B, S, -1))

    def _queries(self, x: Tensor) -> Tensor:
        if self.q_a_proj is None or self.q_a_layernorm is None or self.q_b_proj is None:
            assert self.q_proj is not None
            return self.q_proj(x)
        return self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))

    def _expanded(
        self, q_nope: Tensor, q_rope: Tensor, seen_BTC: Tensor, pattern: AttentionPattern
    ) -> Tensor:
        """Keys and values of every head made from the latents; [B, S, H, v]."""
        B, T, _ = seen_BTC.shape
        latent, k_rope = seen_BTC.split([self.rank, self.rope], dim=-1)
        made = self.kv_b_proj(latent).view(B, T, self.heads, -1)
        k_nope, v = made.split([self.nope, self.v_width], dim=-1)
        if self.nope % 8 or self.v_width % 8:
            v = v.contiguous()  # CUDA's kernels read 16 bytes at once, without a check of alignment
        k_rope = k_rope[:, :, None].expand(-1, -1, self.heads, -1)
        q, k = torch.cat((q_nope, q_rope), dim=-1), torch.cat((k_nope, k_rope), dim=-1)
        return pattern.attend(q, k, v, self.scale)

    def _latent_queries(self, q_nope_BSHD: Tensor, q_rope_BSHD: Tensor) -> Tensor:
        """Queries for keys that are the latents themselves, [B, S, H, C]."""
        to_key_HDR = self._up_weights()[:, : self.nope]
        q_latent = torch.einsum("bshd,hdr->bshr", q_nope_BSHD, to_key_HDR)
        return torch.cat((q_latent, q_rope_BSHD), dim=-1)

    def _values(self, latents_BSHR: Tensor) -> Tensor:
        """Values of weighted latents, [B, S, H, v]."""
        return torch.einsum("bshr,hvr->bshv", latents_BSHR, self._up_weights()[:, self.nope :])

    def _up_weights(self) -> Tensor:
        """W_b as [H, nope + v, rank]."""
        layer = self.kv_b_proj
        weight = layer.rounded_weight() if isinstance(layer, RoundedLinear) else layer.weight
        return weight.view(self.heads, -1, self.rank)


def _pairs_to_halves(x: Tensor) -> Tensor:
    """(x0, x1), (x2, x3), ..., DeepSeek's layout -> x0 x2 ... x1 x3 ..., the layout of `rotate`."""
    return x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)
