"""Tiny models of every class, with every weight away from its initial value: no two answers are alike."""

from __future__ import annotations

from typing import Any

import torch

from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig

LATENT: dict[str, Any] = {
    "kv_lora_rank": 12, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 14,
    "num_key_value_heads": 4, "head_dim": None, "qk_norm": False,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "Qwen3": {"qk_norm": True},
    "Llama": {"qk_norm": False, "tie_word_embeddings": False},
    "Qwen2": {"qk_norm": False, "attention_bias": True},
    "Qwen3Moe": {
        "num_experts": 5,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "router_aux_loss_coef": 0.02,
    },
    "Qwen2Moe": {
        "num_experts": 5,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "n_shared_experts": 2,
        "qk_norm": False,
        "attention_bias": True,
        "norm_topk_prob": False,
    },
    "Glm4Moe": {
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 24,
        "n_shared_experts": 2,
        "scoring_func": "sigmoid",
        "n_group": 3,
        "topk_group": 2,
        "routed_scaling_factor": 1.7,
        "first_k_dense_replace": 1,
        "attention_bias": True,
        "router_aux_loss_coef": 0.003,
        "router_bias_update_speed": 0.01,
    },
    "DeepseekV3": {
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "n_shared_experts": 1,
        "scoring_func": "sigmoid",
        "n_group": 3,
        "topk_group": 2,
        "first_k_dense_replace": 1,
        "q_lora_rank": 20,
        **LATENT,
    },
    "DeepseekV3 dense": {**LATENT, "tie_word_embeddings": False},
}


def tiny_config(family: str, **changes: Any) -> ModelConfig:
    """Odd vocabulary, grouped heads, a head width that hidden_size does not give, an odd theta."""
    values = {
        "vocab_size": 101, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rope_theta": 5000.0,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 64,
    }  # fmt: skip
    return ModelConfig(**{**values, **FAMILIES[family], **changes})


def random_model(config: ModelConfig, seed: int = 0) -> CausalLM:
    """A model whose norms, biases and routers all matter (fresh ones are ones, zeros and near zero)."""
    torch.manual_seed(seed)
    model = CausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.normal_(std=0.15)
    return model


def small_model(spread: float = 0.3, **changes: Any) -> CausalLM:
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
