"""A tiny model with weights far from their start, and a tokenizer that fits it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.tokenizer.train import train_tokenizer


def shaken_model(**changes: Any) -> CausalLM:
    values = {
        "vocab_size": 300, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    }  # fmt: skip
    torch.manual_seed(0)
    model = CausalLM(ModelConfig(**{**values, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(
        ["春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。"] * 2, 300, show_progress=False
    )


@pytest.fixture
def model() -> CausalLM:
    return shaken_model()
