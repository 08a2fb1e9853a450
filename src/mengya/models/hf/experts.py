"""The fields of experts and of latent attention in config.json, class by class.

Takes a `ModelConfig` or transformers' configuration object; gives the fields of the other. hf_config.py
has what all classes share.
"""

from __future__ import annotations

from typing import Any

from mengya.models.config.model import ModelConfig

_SOFTMAX = ("num_experts", "num_experts_per_tok", "norm_topk_prob")
_SIGMOID = (
    "n_shared_experts", "num_experts_per_tok", "norm_topk_prob", "routed_scaling_factor", "n_group",
    "topk_group", "first_k_dense_replace",
)  # fmt: skip
# Ours alone: transformers keeps such keys and ignores them.
_TRAINING = ("router_aux_loss_coef", "router_bias_update_speed")
_LATENT = ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")


def experts_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Fields of config.json that only this class has; {} for Qwen3, Qwen2 and Llama."""
    match config.model_type:
        case "qwen3_moe" | "qwen2_moe":
            values = {name: getattr(config, name) for name in _SOFTMAX}
            values |= {"moe_intermediate_size": config.expert_width, "decoder_sparse_step": 1}
            values |= {"mlp_only_layers": list(range(config.first_k_dense_replace))}
            values |= {"output_router_logits": False, "router_aux_loss_coef": config.aux_loss_coef}
            if config.model_type == "qwen2_moe":
                width = config.n_shared_experts * config.expert_width
                values |= {"shared_expert_intermediate_size": width}
                values |= {"qkv_bias": config.attention_bias}
            return values
        case "glm4_moe":
            bias, qk_norm = config.attention_bias, config.qk_norm
            return _sigmoid_to_hf(config) | {"attention_bias": bias, "use_qk_norm": qk_norm}
        case "deepseek_v3":
            values = _sigmoid_to_hf(config) if config.num_experts else _no_experts(config)
            values |= {name: getattr(config, name) for name in _LATENT}
            # Pairs of neighbours are turned: the layout of the paper's own weights, which llama.cpp
            # and vLLM take for granted. head_dim is what transformers' RoPE reads.
            return values | {"rope_interleave": True, "head_dim": config.qk_rope_head_dim}
        case _:
            return {}


def _sigmoid_to_hf(config: ModelConfig) -> dict[str, Any]:
    values = {name: getattr(config, name) for name in _SIGMOID + _TRAINING}
    values |= {"n_routed_experts": config.num_experts, "router_aux_loss_coef": config.aux_loss_coef}
    values |= {"moe_intermediate_size": config.expert_width, "output_router_logits": False}
    # The last three are DeepSeek's own words for this router, read by llama.cpp and vLLM.
    return values | {
        "num_mtp_layers": 0, "num_nextn_predict_layers": 0,
        "scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1,
    }  # fmt: skip


def _no_experts(config: ModelConfig) -> dict[str, Any]:
    """A dense DeepseekV3: every layer is before the first one with experts."""
    return {
        "first_k_dense_replace": config.num_hidden_layers, "moe_intermediate_size": 0,
        "n_routed_experts": 0, "n_shared_experts": 0, "num_experts_per_tok": 0, "n_group": 1,
        "topk_group": 1, "num_mtp_layers": 0, "num_nextn_predict_layers": 0,
    }  # fmt: skip


def experts_from_hf(hf: Any) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
    """(fields of `ModelConfig`, what must hold: name -> (value found, the only value supported))."""
    match hf.model_type:
        case "qwen3_moe" | "qwen2_moe":
            return _softmax_from_hf(hf)
        case "glm4_moe":
            fields = _sigmoid_from_hf(hf)
            return fields | {"attention_bias": hf.attention_bias, "qk_norm": hf.use_qk_norm}, {}
        case "deepseek_v3":
            dense = hf.first_k_dense_replace >= hf.num_hidden_layers
            fields = {} if dense else _sigmoid_from_hf(hf)
            fields |= {name: getattr(hf, name) for name in _LATENT}
            fields |= {"head_dim": None, "qk_norm": False, "attention_bias": False}
            return fields, {
                "attention_bias": (hf.attention_bias, False),
                "rope_interleave": (hf.rope_interleave, True),
            }
        case _:
            return {}, {}


def _softmax_from_hf(hf: Any) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
    fields = {name: getattr(hf, name) for name in _SOFTMAX}
    fields |= _expert_width(hf)
    fields |= _unless("router_aux_loss_coef", hf.router_aux_loss_coef, 0.01)
    dense = list(hf.mlp_only_layers or [])
    fields["first_k_dense_replace"] = len(dense)
    required = {
        "mlp_only_layers": (sorted(dense), list(range(len(dense)))),
        "decoder_sparse_step": (hf.decoder_sparse_step, 1),
    }
    if hf.model_type == "qwen2_moe":
        width, expert = hf.shared_expert_intermediate_size, hf.moe_intermediate_size
        required["shared_expert_intermediate_size"] = (width, max(width // expert, 1) * expert)
        fields["n_shared_experts"] = max(width // expert, 1)
        fields |= {"qk_norm": False, "attention_bias": hf.qkv_bias}
    else:
        required["attention_bias"] = (hf.attention_bias, False)
    return fields, required


def _sigmoid_from_hf(hf: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(hf, name) for name in _SIGMOID}
    fields |= {"scoring_func": "sigmoid", "num_experts": hf.n_routed_experts} | _expert_width(hf)
    fields |= _unless("router_aux_loss_coef", getattr(hf, "router_aux_loss_coef", 0.0), 0.0)
    if (speed := getattr(hf, "router_bias_update_speed", None)) is not None:
        fields["router_bias_update_speed"] = speed
    return fields


def _expert_width(hf: Any) -> dict[str, Any]:
    return _unless("moe_intermediate_size", hf.moe_intermediate_size, hf.intermediate_size)


def _unless(name: str, value: Any, default: Any) -> dict[str, Any]:
    """The field, or nothing where null says the same: what was written is read back equal."""
    return {} if value == default else {name: value}
