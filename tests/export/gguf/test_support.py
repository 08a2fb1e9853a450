"""What llama.cpp cannot compute is refused; what it can is not."""

from __future__ import annotations

from typing import Any

import pytest

from mengya.errors import UserError
from mengya.export.gguf.metadata import architecture
from mengya.export.gguf.support import check_model
from mengya.models.config.model import ModelConfig
from tests.helpers.random_model import tiny_config
from tests.helpers.rope_scalings import YARN

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("Qwen3", {"rope_parameters": {"rope_type": "dynamic", "factor": 2}}, "dynamic"),
    ("Qwen3", {"rope_parameters": {**YARN, "beta_fast": 8}}, "beta_fast=8.0"),
    ("Qwen3", {"rope_parameters": {**YARN, "truncate": False}}, "truncate=False"),
    (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "original_max_position_embeddings": 16,
                "long_factor": [2.0] * 8,
                "short_factor": [1.0] * 8,
            }
        },
        "longrope",
    ),
    (
        "Qwen3",
        {
            "rope_parameters": {
                "rope_type": "clex",
                "factor": 4,
                "original_max_position_embeddings": 16,
            }
        },
        "mengya merge",
    ),
    ("Qwen3", {"sliding_window": 8, "max_window_layers": 1}, "sliding_window=8"),
    ("Qwen2", {"head_dim": 24}, "hidden_size=48"),
    ("Qwen2Moe", {"head_dim": 12, "norm_topk_prob": True}, "norm_topk_prob=true"),
    ("Qwen2Moe", {"head_dim": 12, "first_k_dense_replace": 1}, "first_k_dense_replace=1"),
]


@pytest.mark.parametrize(("family", "changes", "reason"), REFUSED)
def test_refused_with_the_reason_and_what_to_type(
    family: str, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UserError, match="to=hf") as raised:
        check_model(tiny_config(family, **changes))
    assert reason in str(raised.value)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (tiny_config("Qwen3Moe"), "qwen3moe"),
        (tiny_config("Qwen3Moe", norm_topk_prob=False), "glm4moe"),
        (tiny_config("Qwen3Moe", norm_topk_prob=False, num_experts_per_tok=5), "qwen3moe"),
        (tiny_config("Qwen3Moe", first_k_dense_replace=1), "glm4moe"),
        (tiny_config("Qwen2Moe", head_dim=12), "qwen2moe"),
        (
            tiny_config("Qwen2Moe", head_dim=12, norm_topk_prob=True, num_experts_per_tok=5),
            "qwen2moe",
        ),
        (tiny_config("Glm4Moe"), "glm4moe"),
        (tiny_config("DeepseekV3 dense"), "deepseek2"),
    ],
)
def test_mixtures_have_the_architecture_that_computes_them(config: ModelConfig, name: str) -> None:
    check_model(config)
    assert architecture(config) == name
