"""Shapes that several benchmarks train: what differs from `ModelConfig`'s defaults, and batch sizes."""

from __future__ import annotations

from typing import Any

from mengya.models.config.model import ModelConfig

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 3,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "26m": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8,
            "num_attention_heads": 8, "num_key_value_heads": 2},
    "64m": {"hidden_size": 768, "intermediate_size": 2432, "num_hidden_layers": 8,
            "num_attention_heads": 8, "num_key_value_heads": 4},
    "198m-moe": {"hidden_size": 768, "intermediate_size": 2432, "num_hidden_layers": 8,
                 "num_attention_heads": 8, "num_key_value_heads": 4, "num_experts": 4,
                 "num_experts_per_tok": 1, "moe_intermediate_size": 2432, "norm_topk_prob": False},
    "159m": {"hidden_size": 768, "intermediate_size": 1536, "num_hidden_layers": 8,
             "num_attention_heads": 16, "num_key_value_heads": 8},
    # 12 layers of the second mixture of moe_speed.py: 12 experts of width 256 and a shared one of 512.
    "12x256-moe": {"hidden_size": 1536, "intermediate_size": 2432, "num_hidden_layers": 12,
                   "num_attention_heads": 16, "num_key_value_heads": 4, "num_experts": 12,
                   "num_experts_per_tok": 2, "moe_intermediate_size": 256, "n_shared_experts": 2,
                   "scoring_func": "sigmoid"},
    # 12 layers of 256 experts each, 8 of them for a token.
    "256-experts": {"hidden_size": 768, "intermediate_size": 2432, "num_hidden_layers": 12,
                    "num_attention_heads": 8, "num_key_value_heads": 4, "num_experts": 256,
                    "num_experts_per_tok": 8, "moe_intermediate_size": 64, "n_shared_experts": 1,
                    "scoring_func": "sigmoid"},
    # A mixture with all kinds of layers, small enough for a CPU.
    "tiny-moe": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                 "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 4,
                 "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 1,
                 "scoring_func": "sigmoid"},
}  # fmt: skip
_VOCABULARY = {"159m": 151_669}
_ROWS = {"159m": 16, "12x256-moe": 32, "256-experts": 32}


def config_of(shape: str, size: int) -> ModelConfig:
    """A shape with its vocabulary (6,400; the 159M's is Qwen3's), for rows of `size` tokens."""
    vocabulary = _VOCABULARY.get(shape, 6400)
    return ModelConfig(vocab_size=vocabulary, max_position_embeddings=size, **SHAPES[shape])


def rows_of(shape: str) -> int:
    """Rows of a batch on one GPU."""
    return _ROWS.get(shape, 64)
