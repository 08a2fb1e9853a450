"""The rules of a model's shape: each problem as one sentence with the value, the rule and the remedy.

Knows what each transformers class can hold. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd

from mengya.models.config.shape import ModelShape
from mengya.runtime.integers import ceil_div

_EXPERT_FIELDS = (
    "moe_intermediate_size", "n_shared_experts", "first_k_dense_replace", "scoring_func",
)  # fmt: skip
_SIGMOID_FIELDS = (
    "routed_scaling_factor", "n_group", "topk_group", "router_bias_update_speed",
)  # fmt: skip
_EXPERT_MULTIPLE = 8
_LATENT_WIDTHS = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")


def problems(config: ModelShape) -> Iterator[str]:
    """Everything that makes `config` impossible; nothing when it can be built and saved."""
    yield from _latent(config) if config.kv_lora_rank is not None else _grouped_query(config)
    yield from _positions(config)
    yield from _window(config)
    yield from _experts(config) if config.num_experts else _dense(config)
    yield from _quantization(config)


def new_model_problems(config: ModelShape) -> Iterator[str]:
    """What a new model must not have, though one that exists can be read and trained further here."""
    if reason := untrained_router(config):
        yield reason
    # transformers computes experts with torch's grouped product, whose rows must be of 16 bytes: 8 in bf16.
    widths = {"hidden_size": config.hidden_size, "moe_intermediate_size": config.expert_width}
    for name, width in widths.items():
        if config.num_experts and width % _EXPERT_MULTIPLE:
            near = ceil_div(width, _EXPERT_MULTIPLE) * _EXPERT_MULTIPLE
            yield (
                f"{name}={width} is no multiple of {_EXPERT_MULTIPLE}: transformers could not run the "
                f"experts of this model; write {name}={near}"
            )


def untrained_router(config: ModelShape) -> str | None:
    """Why the loss gives the router no gradient, and the remedy; None where it does.

    Such a model can be read and used, so this is no problem of the shape: p / p is 1 whatever p is.
    """
    if config.num_experts < 2 or config.num_experts_per_tok > 1 or not config.norm_topk_prob:
        return None
    return (
        "num_experts_per_tok=1 with norm_topk_prob=true scales the weight of the one chosen expert to 1, so "
        "the router has no gradient and learns nothing from the text; write norm_topk_prob=false"
    )


def _grouped_query(config: ModelShape) -> Iterator[str]:
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % kv_heads:
        divisors = ", ".join(str(d) for d in range(1, heads + 1) if heads % d == 0)
        yield (
            f"num_attention_heads={heads} is not a multiple of num_key_value_heads={kv_heads}; "
            f"use num_key_value_heads of {divisors}"
        )
    if config.head_dim is None and config.hidden_size % heads:
        yield (
            f"hidden_size={config.hidden_size} is not a multiple of num_attention_heads={heads}; "
            "change one of them or set head_dim"
        )
    elif config.model_type == "llama" and config.hidden_size % heads:
        yield (
            f"hidden_size={config.hidden_size} is not a multiple of num_attention_heads={heads}, which "
            "transformers refuses of a Llama; change one of them, or set qk_norm=true (Qwen3)"
        )
    elif config.head_width % 2:
        yield f"head_dim={config.head_width} is odd, RoPE rotates pairs; use an even head_dim"
    if idle := [n for n in ("q_lora_rank", *_LATENT_WIDTHS) if getattr(config, n) is not None]:
        yield f"{', '.join(idle)} belongs to latent attention; set kv_lora_rank or remove it"


def _latent(config: ModelShape) -> Iterator[str]:
    if missing := [name for name in _LATENT_WIDTHS if getattr(config, name) is None]:
        yield f"kv_lora_rank={config.kv_lora_rank} needs {', '.join(missing)} as well"
    elif config.rotary_width % 2:
        yield f"qk_rope_head_dim={config.rotary_width} is odd, RoPE rotates pairs; use an even one"
    if config.num_key_value_heads != config.num_attention_heads:
        yield (
            "latent attention makes keys and values for every head (DeepseekV3); "
            f"set num_key_value_heads={config.num_attention_heads}"
        )
    if config.head_dim is not None:
        yield (
            f"head_dim={config.head_dim} means nothing to latent attention; remove it and set "
            + ", ".join(_LATENT_WIDTHS)
        )
    if config.qk_norm or config.attention_bias:
        yield (
            "latent attention normalizes its latents and has no biases (DeepseekV3); "
            "set qk_norm=false attention_bias=false"
        )
    if config.num_experts and config.scoring_func != "sigmoid":
        yield (
            "latent attention with experts is saved as DeepseekV3, whose router is a sigmoid; "
            "set scoring_func=sigmoid"
        )


def _positions(config: ModelShape) -> Iterator[str]:
    rope = config.rope_parameters
    original = rope.original_max_position_embeddings
    if original is not None and config.max_position_embeddings < original:
        yield (
            f"max_position_embeddings={config.max_position_embeddings} is the extended context of "
            f"rope_type={rope.rope_type} and less than original_max_position_embeddings={original}; "
            f"write max_position_embeddings={int(original * (rope.factor or 1))}"
        )
    if (rope.learned or rope.rope_type == "dynamic") and config.rotary_width <= 2:
        yield f"rope_type={rope.rope_type} needs a head of more than 2 rotated numbers; use a wider head"
    for name in ("long_factor", "short_factor"):
        numbers = getattr(rope, name)
        if numbers is not None and len(numbers) != config.rotary_width // 2:
            yield (
                f"{name} has {len(numbers)} numbers, this model rotates {config.rotary_width // 2} pairs; "
                "give one for each"
            )
    if rope.partial_rotary_factor == 1:
        return
    if config.model_type != "glm4_moe":
        yield (
            f"partial_rotary_factor={rope.partial_rotary_factor} can be saved as Glm4Moe only "
            "(GQA with scoring_func=sigmoid); remove it"
        )
    elif config.rotary_width % 2 or config.rotary_width == 0:
        yield (
            f"partial_rotary_factor={rope.partial_rotary_factor} rotates {config.rotary_width} numbers "
            f"of head_dim={config.head_width}; it must be an even number above 0"
        )


def _window(config: ModelShape) -> Iterator[str]:
    full = config.max_window_layers
    if config.sliding_window is None:
        if full:
            yield f"max_window_layers={full} does nothing without sliding_window; set both or none"
    elif full >= config.num_hidden_layers:
        yield (
            f"max_window_layers={full} leaves none of the {config.num_hidden_layers} layers to "
            f"sliding_window={config.sliding_window}; lower it, or set sliding_window=null"
        )
    elif config.model_type not in ("qwen2", "qwen3"):
        yield (
            f"sliding_window={config.sliding_window} can be saved as Qwen3 or Qwen2 only, this shape is "
            f"a {config.model_type}; remove it, or use GQA without experts and qk_norm=true (Qwen3)"
        )


def _dense(config: ModelShape) -> Iterator[str]:
    if config.qk_norm and config.attention_bias and config.kv_lora_rank is None:
        yield (
            "qk_norm and attention_bias together exist in no dense transformers class that we write; "
            "set qk_norm=false (Qwen2) or attention_bias=false (Qwen3)"
        )
    if idle := _changed(config, _EXPERT_FIELDS + _SIGMOID_FIELDS):
        yield f"{', '.join(idle)} does nothing without experts; set num_experts or remove it"


def _experts(config: ModelShape) -> Iterator[str]:
    E, k = config.num_experts, config.num_experts_per_tok
    if k > E:
        yield f"num_experts_per_tok={k} is more than num_experts={E}; lower it"
    if config.first_k_dense_replace >= config.num_hidden_layers:
        yield (
            f"first_k_dense_replace={config.first_k_dense_replace} leaves none of the "
            f"{config.num_hidden_layers} layers to num_experts={E}; lower it, or set num_experts=0"
        )
    if config.scoring_func == "sigmoid":
        yield from _sigmoid(config)
        return
    if idle := _changed(config, _SIGMOID_FIELDS):
        yield f"{', '.join(idle)} does nothing with scoring_func=softmax; set scoring_func=sigmoid"
    if config.kv_lora_rank is not None:
        return
    if config.n_shared_experts and config.qk_norm:
        yield (
            f"n_shared_experts={config.n_shared_experts} with a softmax router is saved as Qwen2Moe, "
            "which never has qk_norm; set qk_norm=false, or scoring_func=sigmoid (Glm4Moe)"
        )
    if not config.n_shared_experts and not (config.qk_norm and not config.attention_bias):
        yield (
            f"num_experts={E} is saved as Qwen3Moe, which always has qk_norm and no attention_bias; "
            "set qk_norm=true attention_bias=false, or scoring_func=sigmoid n_shared_experts=1 "
            "(Glm4Moe), or num_experts=0"
        )


def _quantization(config: ModelShape) -> Iterator[str]:
    if config.quantization is None:
        return
    if config.quantization.number == "ternary" and config.kv_lora_rank is not None:
        yield (
            "quantization=ternary rounds the inputs of every layer, and latent attention decodes without "
            "those of kv_b_proj; write quantization.bits=2 (weights alone), or use GQA: kv_lora_rank=null"
        )
    size = config.quantization.group_size
    odd = {name: width for name, width in _input_widths(config).items() if size and width % size}
    if size and odd:
        common = gcd(*_input_widths(config).values())
        fitting = max(n for n in range(1, min(size, common) + 1) if common % n == 0)
        name, width = next(iter(odd.items()))
        yield (
            f"quantization.group_size={size} does not divide {name} of {width} inputs; "
            f"write quantization.group_size={fitting}"
        )


def _input_widths(config: ModelShape) -> dict[str, int]:
    """Inputs of the layers that are rounded, by what decides them."""
    widths = {"hidden_size": config.hidden_size}
    if config.kv_lora_rank is None:
        widths["attention's output"] = config.num_attention_heads * config.head_width
    else:
        widths["attention's output"] = config.num_attention_heads * (config.v_head_dim or 0)
        widths |= {"kv_lora_rank": config.kv_lora_rank}
        widths |= {"q_lora_rank": config.q_lora_rank} if config.q_lora_rank else {}
    if not config.num_experts or config.first_k_dense_replace:
        widths["intermediate_size"] = config.intermediate_size
    if config.num_experts:
        widths["moe_intermediate_size"] = config.expert_width
    return widths


def _sigmoid(config: ModelShape) -> Iterator[str]:
    E, k, groups, kept = (
        config.num_experts, config.num_experts_per_tok, config.n_group, config.topk_group
    )  # fmt: skip
    if not config.n_shared_experts:
        yield (
            "scoring_func=sigmoid is saved as Glm4Moe or DeepseekV3, which always have a shared "
            "expert; set n_shared_experts=1 or scoring_func=softmax"
        )
    if E % groups or E // groups < 2:
        fitting = ", ".join(str(g) for g in range(1, E // 2 + 1) if E % g == 0)
        yield (
            f"n_group={groups} does not divide num_experts={E} into equal groups of two or more; "
            f"use n_group of {fitting or '1 and at least two experts'}"
        )
    elif kept > groups:
        yield f"topk_group={kept} is more than n_group={groups}; lower it"
    elif k > kept * (E // groups):
        yield (
            f"num_experts_per_tok={k} is more than the {kept * (E // groups)} experts of "
            f"topk_group={kept} groups; raise topk_group or lower num_experts_per_tok"
        )


def _changed(config: ModelShape, names: tuple[str, ...]) -> list[str]:
    fields = type(config).model_fields
    return [name for name in names if getattr(config, name) != fields[name].default]
