"""A step of decoding as torch's exporter takes it: ids, positions, mask, earlier keys and values in and out.

Takes a `CausalLM`; gives a module whose inputs and outputs are those of transformers.js and
onnxruntime-genai. Knows no files. Shapes: B rows, S new tokens, P tokens before them, T = P + S, K key heads,
D head width, L layers.
"""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mengya.kernels.attention.dense import repeat_heads
from mengya.kernels.attention.pattern import AttentionPattern
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.moe import Experts, MoE


def input_names(config: ModelConfig) -> list[str]:
    """In the order of `DecoderGraph.forward`."""
    return ["input_ids", "attention_mask", "position_ids", *_cache_names(config, "past_key_values")]


def output_names(config: ModelConfig) -> list[str]:
    return ["logits", *_cache_names(config, "present")]


def _cache_names(config: ModelConfig, prefix: str) -> list[str]:
    parts = ("key", "value")
    return [
        f"{prefix}.{layer}.{part}" for layer in range(config.num_hidden_layers) for part in parts
    ]


class DecoderGraph(nn.Module):
    """One step of decoding without state: keys and values come in and go out."""

    def __init__(self, model: CausalLM) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        for module in self.model.modules():
            if isinstance(module, MoE):
                module.experts = EveryExpert(module.experts)  # type: ignore[assignment]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """
        Args:
            input_ids, position_ids: [B, S] int64.
            attention_mask: [B, T] int64, 0 on padding.
            past: key and value of every layer in turn, [B, K, P, D].

        Returns:
            logits [B, S, V] and the longer keys and values, [B, K, T, D].
        """
        cache = ExchangedCache(past, attention_mask)
        logits = self.model.decode(input_ids, cache, position_ids)
        return logits, *cache.present


class ExchangedCache:
    """A `Cache` whose keys and values are inputs and outputs of the graph."""

    def __init__(self, past: list[Tensor], attention_mask: Tensor) -> None:
        self._past, self._mask_BT = past, attention_mask
        self.present: list[Tensor] = []

    def positions(self, new: int, device: torch.device) -> Tensor:
        raise NotImplementedError  # they are an input

    def pattern(
        self, new: int, window: int | None, dtype: torch.dtype, device: torch.device
    ) -> AttentionPattern:
        """As `Cache.pattern`."""
        total = self._mask_BT.shape[1]
        keys = torch.arange(total, device=device)
        queries = torch.arange(total - new, total, device=device)[:, None]
        seen_ST = keys <= queries
        if window is not None:
            seen_ST = seen_ST & (keys > queries - window)
        # A padded position sees itself: a row of -inf would be NaN.
        seen_BST = seen_ST & (self._mask_BT[:, None] > 0) | (keys == queries)
        return MaskedPattern(torch.where(seen_BST, 0.0, float("-inf")).to(dtype)[:, None])

    def attend(
        self,
        layer: int,
        q_BSHD: Tensor,
        k_BSKD: Tensor,
        v_BSKV: Tensor,
        pattern: AttentionPattern,
        scale: float | None = None,
    ) -> Tensor:
        """As `Cache.attend`."""
        new = (k_BSKD.transpose(1, 2), v_BSKV.transpose(1, 2))
        held = self._past[2 * layer : 2 * layer + 2]
        k_BKTD, v_BKTV = (torch.cat(pair, dim=2) for pair in zip(held, new, strict=True))
        self.present += [k_BKTD, v_BKTV]
        return pattern.attend(q_BSHD, k_BKTD.transpose(1, 2), v_BKTV.transpose(1, 2), scale)

    def attend_latents(
        self,
        layer: int,
        q_BSHC: Tensor,
        new_BSC: Tensor,
        rank: int,
        pattern: AttentionPattern,
        scale: float,
    ) -> Tensor:
        raise NotImplementedError  # refused before: transformers.js knows no latents

    def expandable_latents(self, layer: int, new_BSC: Tensor) -> Tensor | None:
        raise NotImplementedError

    def advance(self, tokens: int) -> None:
        """As `Cache.advance`: the mask's length says it."""


class MaskedPattern:
    """Attention with an additive mask, without a case for one new token: the graph is one for all lengths."""

    packed: ClassVar[bool] = False

    def __init__(self, mask_B1ST: Tensor) -> None:
        self._mask = mask_B1ST

    def attend(
        self, q_BSHD: Tensor, k_BTKD: Tensor, v_BTKV: Tensor, scale: float | None = None
    ) -> Tensor:
        """As `AttentionPattern.attend`."""
        groups = q_BSHD.shape[2] // k_BTKD.shape[2]
        k, v = (repeat_heads(t.transpose(1, 2), groups) for t in (k_BTKD, v_BTKV))
        out = F.scaled_dot_product_attention(q_BSHD.transpose(1, 2), k, v, self._mask, scale=scale)
        return out.transpose(1, 2)


class EveryExpert(nn.Module):
    """Experts as a graph: each computes every token, and its share is 0 for those that are not its own.

    A graph has no loop over the tokens of an expert; for a model of few experts this is the smaller evil.
    """

    def __init__(self, experts: Experts) -> None:
        super().__init__()
        gate, up = experts.gate_up_proj.detach().chunk(2, dim=1)
        self.gates, self.ups = _linears(gate), _linears(up)
        self.downs = _linears(experts.down_proj.detach())

    def forward(self, x_NH: Tensor, weights_Nk: Tensor, experts_Nk: Tensor) -> Tensor:
        """As `Experts.forward`."""
        out = torch.zeros_like(x_NH)
        for e, (gate, up, down) in enumerate(zip(self.gates, self.ups, self.downs, strict=True)):
            share_N1 = torch.where(experts_Nk == e, weights_Nk, 0.0).sum(-1, keepdim=True)
            out = out + share_N1 * down(F.silu(gate(x_NH)) * up(x_NH))
        return out


def _linears(weights_EOI: Tensor) -> nn.ModuleList:
    layers = nn.ModuleList()
    for weight_OI in weights_EOI:
        layer = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], bias=False, device="meta")
        layer.weight = nn.Parameter(weight_OI.clone(), requires_grad=False)
        layers.append(layer)
    return layers
