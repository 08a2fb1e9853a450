"""config.json: a `ModelConfig` in transformers' words, and back.

Written so that transformers 4.57 and 5 read the
same model out of it; read through transformers' own classes, which know every default of theirs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from mengya.errors import UserError, shown
from mengya.models.config.model import ContextExtension, ModelConfig
from mengya.models.config.rope import RopeParameters, rope_from_hf
from mengya.models.hf.trained_quantization import (
    is_online_bitnet,
    quantization_from_hf,
    quantization_to_hf,
)

CLASSES = {
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "glm4_moe": "Glm4MoeForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
}
_OWN = (
    "mengya_"  # our own model_type of a learned rope_type over one of the classes: mengya_ROPE_TYPE
)
_SUPPORTED = ", ".join(CLASSES.values())
_SAME_NAME = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings",
    "initializer_range",
)  # fmt: skip
_SLIDING = "sliding_attention"
_WINDOW = ("sliding_window", "max_window_layers")
# Fields of experts and of latent attention, by router.
_SOFTMAX = ("num_experts", "num_experts_per_tok", "norm_topk_prob")
_SIGMOID = (
    "n_shared_experts", "num_experts_per_tok", "norm_topk_prob", "routed_scaling_factor", "n_group",
    "topk_group", "first_k_dense_replace",
)  # fmt: skip
_TRAINED_LENGTH = "training_sequence_length"
# Ours alone, as the length above: transformers keeps such keys and ignores them.
_TRAINING = ("router_aux_loss_coef", "router_bias_update_speed")
_LATENT = ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")


def config_to_hf(config: ModelConfig, dtype: torch.dtype) -> dict[str, Any]:
    """The content of config.json, readable by transformers 4.57 and 5."""
    dtype_name = str(dtype).removeprefix("torch.")
    partial = config.model_type == "glm4_moe"
    rope = config.rope_parameters.to_hf(config.rope_theta, partial)
    values: dict[str, Any] = {
        "architectures": [CLASSES[config.model_type]],
        "model_type": config.model_type,
        **{name: getattr(config, name) for name in _SAME_NAME},
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "use_cache": True,
        # transformers 5 reads rope_parameters; 4.x reads only the fields below, and without them
        # takes its own defaults and gives wrong logits in silence.
        "rope_parameters": rope,
        "rope_theta": config.rope_theta,
        "dtype": dtype_name,
        "torch_dtype": dtype_name,
    }
    if partial:
        values["partial_rotary_factor"] = config.rope_parameters.partial_rotary_factor
    rope_type, learned = config.rope_parameters.rope_type, config.rope_parameters.learned
    if rope_type != "default" and not learned:
        # transformers 5 prefers this to rope_parameters where both are; they say the same.
        values["rope_scaling"] = {k: v for k, v in rope.items() if k != "rope_theta"}
    if config.model_type not in ("qwen2", "qwen2_moe"):  # Qwen2 has no such field, or another name
        values["attention_bias"] = False
    if config.model_type == "llama":
        values["mlp_bias"] = False
    elif config.model_type.startswith("qwen"):
        values["use_sliding_window"] = config.sliding_window is not None
    if config.sliding_window is not None:
        values |= {name: getattr(config, name) for name in _WINDOW}
        values["layer_types"] = _layer_types(config.num_hidden_layers, config.max_window_layers)
    if config.training_sequence_length is not None:
        values[_TRAINED_LENGTH] = config.training_sequence_length
    values |= quantization_to_hf(config) | _experts_to_hf(config)
    if learned:
        values["architectures"] = [f"Mengya{rope_type.capitalize()}ForCausalLM"]
        values |= {"model_type": _OWN + rope_type, "base_model_type": config.model_type}
    return values


def load_model_config(directory: Path | str) -> ModelConfig:
    """Read config.json of a folder of one of `CLASSES`.

    Raises:
        UserError: naming the file, the value that is not supported, and what is.
    """
    path = Path(directory) / "config.json"
    values = _values(path)
    model_type = values.get("model_type")
    if str(model_type).startswith(_OWN):
        return _learned_from_hf(values, path)
    if model_type not in CLASSES:
        architectures = values.get("architectures") or [model_type]
        raise UserError(
            f"{path}: model class {', '.join(map(str, architectures))} (model_type "
            f"{model_type!r}) is not supported; supported: {_SUPPORTED}"
        )
    return _config_from_hf(values, path)


def load_quantization(directory: Path | str) -> dict[str, Any] | None:
    """`quantization_config` of config.json; None: the weights are full, or full ones rounded at every call.

    Raises:
        UserError: there is no config.json that can be read, or this part of it is no mapping.
    """
    path = Path(directory) / "config.json"
    values = _values(path)
    if is_online_bitnet(values):
        return None
    values = values.get("quantization_config")
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{path}: quantization_config {shown(values)} must be a mapping")
    return values


def _values(path: Path) -> dict[str, Any]:
    """The content of config.json."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; give a checkpoint folder (one that holds config.json)"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not readable JSON: it holds no object")
    return values


def _learned_from_hf(values: dict[str, Any], path: Path) -> ModelConfig:
    """The base class, with our own rope_type."""
    rope = values.get("rope_parameters")
    base = values.get("base_model_type")
    if not isinstance(rope, dict) or base not in CLASSES or "rope_theta" not in rope:
        raise UserError(
            f"{path}: model_type={values['model_type']} needs base_model_type (one of "
            f"{', '.join(CLASSES)}) and rope_parameters with rope_theta; was the file edited?"
        )
    kept = {name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if name in rope}
    stock = {**values, "model_type": base, "rope_parameters": {"rope_type": "default", **kept}}
    plain = _config_from_hf(stock, path)
    try:
        learned = RopeParameters(**{name: v for name, v in rope.items() if name != "rope_theta"})
    except ValidationError as error:
        raise UserError(f"{path}: {'; '.join(map(_reason, error.errors()))}") from error
    length = plain.max_position_embeddings
    return plain.extend_context(
        ContextExtension(max_position_embeddings=length, rope_parameters=learned)
    )


def _config_from_hf(values: dict[str, Any], path: Path) -> ModelConfig:
    # transformers fills in each class's defaults and brings 4.x fields into today's form.
    from transformers import AutoConfig

    try:
        hf = AutoConfig.for_model(**values)
    except Exception as error:  # its validation raises many kinds; all mean: this file is wrong
        raise UserError(f"{path}: transformers refuses this configuration: {error}") from error
    rope = hf.rope_parameters or {}
    fields = {name: getattr(hf, name) for name in _SAME_NAME}
    fields[_TRAINED_LENGTH] = getattr(hf, _TRAINED_LENGTH, None)
    fields["quantization"] = quantization_from_hf(values)
    head_dim = getattr(hf, "head_dim", None)
    usual = hf.hidden_size / hf.num_attention_heads
    fields["head_dim"] = None if head_dim == usual else head_dim
    fields["rope_theta"] = rope.get("rope_theta", 10_000.0)
    fields["rope_parameters"] = rope_from_hf(rope, hf.max_position_embeddings)
    fields["qk_norm"] = hf.model_type.startswith("qwen3")
    fields["attention_bias"] = hf.model_type == "qwen2"
    required = {
        "hidden_act": (hf.hidden_act, "silu"),
        "mlp_bias": (getattr(hf, "mlp_bias", False), False),
    }
    if hf.model_type in ("qwen3", "llama"):
        required["attention_bias"] = (hf.attention_bias, False)
    window, window_required = _window_from_hf(hf)
    own_fields, own_required = _experts_from_hf(hf)
    fields |= own_fields | window
    wrong = [
        f"{name}={value!r} is not supported (only {supported!r})"
        for name, (value, supported) in (required | own_required | window_required).items()
        if value != supported
    ]
    if wrong:
        raise UserError(f"{path}: {'; '.join(wrong)}")
    try:
        return ModelConfig(**fields)
    except ValidationError as error:
        raise UserError(f"{path}: {'; '.join(map(_reason, error.errors()))}") from error


def _window_from_hf(hf: Any) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
    """As `_experts_from_hf`: the first layers see all, the others the window, in Qwen3 and Qwen2."""
    if not getattr(hf, "use_sliding_window", False):
        return {}, {}
    if hf.model_type not in ("qwen2", "qwen3"):
        return {}, {"use_sliding_window": (True, False)}
    types = list(hf.layer_types)
    full = types.index(_SLIDING) if _SLIDING in types else len(types)
    required = {"layer_types": (types, _layer_types(len(types), full))}
    if full == len(types):
        return {}, required
    return {"sliding_window": hf.sliding_window, "max_window_layers": full}, required


def _layer_types(layers: int, full: int) -> list[str]:
    return ["full_attention"] * full + [_SLIDING] * (layers - full)


def _reason(item: Mapping[str, Any]) -> str:
    where = ".".join(map(str, item["loc"]))
    return (f"{where}: " if where else "") + item["msg"].removeprefix("Value error, ")


def _experts_to_hf(config: ModelConfig) -> dict[str, Any]:
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
            # Pairs of neighbours are rotated: the layout of the paper's own weights, which llama.cpp
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


def _experts_from_hf(hf: Any) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
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
