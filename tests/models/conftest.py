"""Tiny models of every class, with every weight away from its initial value, and their oracles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

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


def shaken(config: ModelConfig, seed: int = 0) -> CausalLM:
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


def oracle_of(model: CausalLM) -> Any:
    """transformers' own class with the same weights, built without our config writer."""
    ours = model.config
    family = next(f for f in FAMILIES if f.lower() == ours.model_type.replace("_", ""))
    values: dict[str, Any] = {
        name: getattr(ours, name)
        for name in (
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim",
            "num_attention_heads", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings",
            "max_position_embeddings",
        )
    }  # fmt: skip
    values["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": ours.rope_theta,
        **ours.rope_parameters.model_dump(exclude_defaults=True),
    }
    values |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    if ours.num_experts:
        values |= _oracle_experts(ours)
    if family == "DeepseekV3":
        for name in LATENT.keys() - {"head_dim", "qk_norm"} | {"q_lora_rank"}:
            values[name] = getattr(ours, name)
        del values["head_dim"]
        values |= {"rope_interleave": True, "num_mtp_layers": 0}
        if not ours.num_experts:
            values |= {"first_k_dense_replace": ours.num_hidden_layers}
    theirs = getattr(transformers, f"{family}ForCausalLM")(
        getattr(transformers, f"{family}Config")(**values)
    )
    theirs.load_state_dict(model.state_dict())
    return theirs.eval()


def _oracle_experts(ours: ModelConfig) -> dict[str, Any]:
    values: dict[str, Any] = {
        "num_experts_per_tok": ours.num_experts_per_tok,
        "norm_topk_prob": ours.norm_topk_prob,
        "moe_intermediate_size": ours.expert_width,
    }
    if ours.scoring_func == "softmax":
        values |= {"num_experts": ours.num_experts, "qkv_bias": ours.attention_bias}
        values["mlp_only_layers"] = [*range(ours.first_k_dense_replace)]
        values["shared_expert_intermediate_size"] = ours.n_shared_experts * ours.expert_width
        return values
    for name in (
        "n_shared_experts", "n_group", "topk_group", "routed_scaling_factor",
        "first_k_dense_replace", "attention_bias",
    ):  # fmt: skip
        values[name] = getattr(ours, name)
    values |= {"n_routed_experts": ours.num_experts, "use_qk_norm": ours.qk_norm}
    values |= {"num_mtp_layers": 0, "partial_rotary_factor": 1.0}
    return values


def assert_near(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Equal to fp32 rounding."""
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=1e-5)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def config(family: str) -> ModelConfig:
    return tiny_config(family)


@pytest.fixture
def model(config: ModelConfig) -> CausalLM:
    return shaken(config)


@pytest.fixture
def oracle(model: CausalLM) -> Any:
    return oracle_of(model)


@pytest.fixture
def input_ids(config: ModelConfig) -> torch.Tensor:
    """[3, 20] tokens."""
    return torch.randint(config.vocab_size, (3, 20), generator=torch.Generator().manual_seed(7))
