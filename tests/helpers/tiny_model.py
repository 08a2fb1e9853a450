"""A tiny causal model with random weights far from their initial ones, so that no two answers are alike."""

from __future__ import annotations

from typing import Any

import torch

from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig


def random_model(spread: float = 0.3, **changes: Any) -> CausalLM:
    """The same weights in every call; `changes` are fields of ModelConfig.

    Args:
        spread: standard deviation of what is added to the initial weights.
    """
    values = {
        "vocab_size": 300, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    }  # fmt: skip
    torch.manual_seed(0)
    model = CausalLM(ModelConfig(**{**values, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * spread)
    return model
