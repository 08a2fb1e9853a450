"""Impossible shapes are refused with what to type instead."""

from __future__ import annotations

from typing import Any

import pytest

from mengya.config import UserError, load_config
from mengya.models.config import ModelConfig


@pytest.mark.parametrize(
    ("overrides", "reasons"),
    [
        (["num_attention_heads=6", "num_key_value_heads=4", "head_dim=8"], ["use num_key_value_heads of 1, 2, 3, 6"]),
        (["hidden_size=100"], ["hidden_size=100", "set head_dim"]),
        (["head_dim=15"], ["head_dim=15 is odd"]),
        (["attention_bias=true"], ["qk_norm=false (Qwen2)", "attention_bias=false (Qwen3)"]),
        (["num_experts=4", "qk_norm=false"], ["Qwen3Moe", "qk_norm=true"]),
        (["num_experts=2", "num_experts_per_tok=3"], ["num_experts_per_tok=3", "lower it"]),
        (["head_dim=15", "num_experts=2", "num_experts_per_tok=3"], ["is odd", "lower it"]),
        (["num_layers=3"], ["num_layers: unknown key", "num_hidden_layers"]),
    ],
)  # fmt: skip
def test_impossible_shapes_are_refused(overrides: list[str], reasons: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        load_config(ModelConfig, None, overrides)
    for reason in reasons:
        assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("values", "model_type"),
    [
        ({}, "qwen3"),
        ({"qk_norm": False}, "llama"),
        ({"qk_norm": False, "attention_bias": True}, "qwen2"),
        ({"num_experts": 4}, "qwen3_moe"),
    ],
)
def test_three_fields_choose_the_class(values: dict[str, Any], model_type: str) -> None:
    assert ModelConfig(**values).model_type == model_type
