"""transformers' own models with the weights of ours."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from tests.helpers.random_model import FAMILIES, LATENT


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
