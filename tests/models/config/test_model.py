"""Impossible shapes are refused with what to type instead."""

from __future__ import annotations

from typing import Any

import pytest

from mengya.config import load_config
from mengya.errors import UserError
from mengya.models.config.model import ModelConfig

SIGMOID = ["num_experts=6", "n_shared_experts=1", "scoring_func=sigmoid"]


@pytest.mark.parametrize(
    ("overrides", "reasons"),
    [
        (
            ["num_attention_heads=6", "num_key_value_heads=4", "head_dim=8"],
            ["use num_key_value_heads of 1, 2, 3, 6"],
        ),
        (["hidden_size=100"], ["hidden_size=100", "set head_dim"]),
        (["head_dim=15"], ["head_dim=15 is odd"]),
        (["attention_bias=true"], ["qk_norm=false (Qwen2)", "attention_bias=false (Qwen3)"]),
        (["num_experts=4", "qk_norm=false"], ["Qwen3Moe", "qk_norm=true"]),
        (["num_experts=4", "n_shared_experts=1"], ["Qwen2Moe", "scoring_func=sigmoid"]),
        (["num_experts=4", "scoring_func=sigmoid"], ["set n_shared_experts=1"]),
        (["num_experts=4", "routed_scaling_factor=2"], ["does nothing with scoring_func=softmax"]),
        (["num_experts=4", "first_k_dense_replace=8"], ["leaves none"]),
        ([*SIGMOID, "n_group=4"], ["use n_group of 1, 2, 3"]),
        ([*SIGMOID, "topk_group=2"], ["topk_group=2 is more than n_group=1"]),
        ([*SIGMOID, "n_group=3", "num_experts_per_tok=3"], ["raise topk_group"]),
        (["n_shared_experts=1"], ["does nothing without experts"]),
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
        ({"num_experts": 4, "n_shared_experts": 1, "qk_norm": False}, "qwen2_moe"),
        ({"num_experts": 4, "n_shared_experts": 1, "scoring_func": "sigmoid"}, "glm4_moe"),
    ],
)
def test_a_few_fields_choose_the_class(values: dict[str, Any], model_type: str) -> None:
    assert ModelConfig(**values).model_type == model_type
