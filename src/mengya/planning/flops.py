"""FLOPs of a model, exact from its weights: one count for `mengya plan` and for MFU in training.

Takes a `CausalLM` (on any device, meta too) and the mean number of positions that a token sees; gives
FLOPs per token. A multiplication and an addition count as two. Counted are matrix products alone:
norms, activations, RoPE, softmax and the optimizer are not counted, as in PaLM (Chowdhery et al. 2022,
arXiv:2204.02311, appendix B), whose definition of MFU this is.

    forward   2 * weights that a token meets  +  2 * layers * heads * (key width + value width) * visible
    backward  as much again for the inputs' gradients, and again for those of weights that are trained

So a fully trained model costs 6 per weight and 12 * layers * heads * head_dim * visible per token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.token_row_layers import RowsLinear


class Flops(NamedTuple):
    """FLOPs of one token by place."""

    layers: float
    """Projections, feed-forward layers, routers and adapters; experts by num_experts_per_tok."""
    attention: float
    """Scores and weighted values."""
    output: float
    """The output layer."""

    @property
    def total(self) -> float:
        return sum(self)

    def plus(self, other: Flops) -> Flops:
        return Flops(*(a + b for a, b in zip(self, other, strict=True)))


def forward_flops(model: CausalLM, visible: float, labelled: float = 1.0) -> Flops:
    """One token through the model.

    Args:
        visible: mean number of positions that a token attends to, itself included:
            (S + 1) / 2 for rows of one document, less where documents are packed (`Mixture.visible`).
        labelled: share of the positions whose logits are computed (`NextToken.labelled_only`).
    """
    weights = sum(weight.numbers for weight in _layer_weights(model))
    output = model.lm_head.weight.numel()
    return Flops(2 * weights, _attention(model.config, visible), 2 * output * labelled)


def training_flops(
    model: CausalLM, visible: float, labelled: float = 1.0, reference: bool = False
) -> Flops:
    """One token forward and backward: model FLOPs, so nothing that checkpointing computes twice.

    Frozen weights (LoRA) take no gradient of their own; `reference` adds the forward pass of DPO's
    frozen model. Arguments otherwise as in `forward_flops`.
    """
    forward = forward_flops(model, visible, labelled)
    layers = sum(w.numbers * (1 + w.passes_back + w.trains) for w in _layer_weights(model))
    output = forward.output * (2 + model.lm_head.weight.requires_grad)
    if isinstance(model.lm_head, RowsLinear) and model.lm_head.rows.replaced is not None:
        output += 2 * model.lm_head.rows.replaced.rows_KH.numel() * labelled
    total = Flops(2 * layers, 3 * forward.attention, output)
    return total.plus(forward) if reference else total


def recomputed_flops(model: CausalLM, visible: float) -> float:
    """What gradient checkpointing adds per token: the layers' forward pass once more."""
    forward = forward_flops(model, visible)
    return forward.layers + forward.attention


def muon_flops(matrices: Mapping[str, Tensor], steps: int = 5) -> float:
    """Orthogonalizing all matrices once: what a step of Muon costs in addition to the gradients.

    For r rows and c >= r columns one iteration is X X^T, its square and their product with X:
    2 r^2 c + 2 r^3 + 2 r^2 c. Experts are a stack of matrices, gate and up of each one below the other.
    """
    total = 0.0
    for name, matrix in matrices.items():
        parts = 2 if name.endswith("experts.gate_up_proj") else 1
        rows, columns = sorted((matrix.shape[-2] // parts, matrix.shape[-1]))
        count = matrix.numel() / (rows * columns)
        total += count * steps * (4 * rows**2 * columns + 2 * rows**3)
    return total


class _Weight(NamedTuple):
    """A matrix inside the layers: numbers that one token is multiplied with, and what comes back."""

    numbers: float
    passes_back: bool
    trains: bool


# What reads the hidden state first: without a trained embedding nothing lies before it.
_FIRST = re.compile(r"0\.self_attn\.(q|k|v|q_a)_proj\.|0\.self_attn\.kv_a_proj_with_mqa\.")


def _layer_weights(model: CausalLM) -> list[_Weight]:
    config, found = model.config, []
    embedding_trains = any(p.requires_grad for p in model.model.embed_tokens.parameters())
    for name, parameter in model.model.layers.named_parameters():
        if parameter.ndim < 2:
            continue  # norms and biases
        share, trains = 1.0, parameter.requires_grad
        if ".mlp.experts." in name:
            if ".lora_" in name:
                continue  # multiplied with one another once a step, not with tokens
            share = config.num_experts_per_tok / config.num_experts
            # PEFT adds the adapters' product to the weight, whose full gradient it then needs.
            trains = trains or ".base_layer." in name
        # The second factor of an adapter reads the first one's output, which always has a gradient.
        first = _FIRST.match(name) and ".lora_B." not in name
        passes_back = embedding_trains or not first
        found.append(_Weight(parameter.numel() * share, passes_back, trains))
    return found


def _attention(config: ModelConfig, visible: float) -> float:
    keys, values = config.head_width, config.v_head_dim or config.head_width
    heads = config.num_hidden_layers * config.num_attention_heads
    return 2 * heads * (keys + values) * visible
