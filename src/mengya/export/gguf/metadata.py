"""What a GGUF file says of the shape of a model: the keys of llama.cpp's architectures.

Takes a `ModelConfig`, already checked by `support`; writes to a `GGUFWriter`. Knows no tokenizer.
"""

from __future__ import annotations

import math

from gguf import ExpertGatingFuncType, GGUFWriter, RopeScalingType

from mengya.models.config.model import ModelConfig

_ARCHITECTURES = {
    "qwen3": "qwen3", "llama": "llama", "qwen2": "qwen2", "qwen3_moe": "qwen3moe",
    "qwen2_moe": "qwen2moe", "glm4_moe": "glm4moe", "deepseek_v3": "deepseek2",
}  # fmt: skip


def architecture(config: ModelConfig) -> str:
    """llama.cpp's name of the computation.

    Its qwen3moe always scales the chosen experts' weights to one and has experts in every layer; a Qwen3Moe
    without one of these is a glm4moe with a softmax and a shared expert of zeros.
    """
    if config.model_type == "qwen3_moe":
        chosen_of_all = (
            config.num_experts_per_tok == config.num_experts
        )  # their weights sum to one anyway
        if config.first_k_dense_replace or not (config.norm_topk_prob or chosen_of_all):
            return "glm4moe"
    return _ARCHITECTURES[config.model_type]


def own_amplitude(config: ModelConfig) -> float:
    """What llama.cpp multiplies cosines and sines by under YaRN, and latent attention's scores always."""
    return 0.1 * math.log(config.rope_parameters.factor or 1.0) + 1.0


def add_shape(writer: GGUFWriter, config: ModelConfig) -> None:
    """All keys of the architecture, positions and experts included."""
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_head_count(config.num_attention_heads)
    if config.kv_lora_rank is None:
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(config.head_width)
        writer.add_value_length(config.head_width)
    else:
        _add_latent_attention(writer, config)
    _add_positions(writer, config)
    if config.num_experts:
        _add_experts(writer, config)
    elif config.kv_lora_rank is not None:  # deepseek2 asks for them even without experts
        writer.add_leading_dense_block_count(config.num_hidden_layers)
        writer.add_expert_feed_forward_length(config.intermediate_size)
        writer.add_expert_shared_count(0)


def _add_positions(writer: GGUFWriter, config: ModelConfig) -> None:
    rope = config.rope_parameters
    writer.add_rope_dimension_count(config.rotary_width)
    writer.add_rope_freq_base(config.rope_theta)
    if rope.rope_type == "default":
        writer.add_rope_scaling_type(RopeScalingType.NONE)
        return
    assert rope.factor is not None
    writer.add_rope_scaling_type(RopeScalingType(rope.rope_type))
    writer.add_rope_scaling_factor(rope.factor)
    if rope.rope_type == "yarn":
        assert rope.original_max_position_embeddings is not None
        writer.add_rope_scaling_orig_ctx_len(rope.original_max_position_embeddings)
    # llama.cpp's amplitude is taken away here and ours put in its place; latent attention has ours in the
    # weights (tensors.py), since llama.cpp applies it to all of a score.
    if config.kv_lora_rank is not None:
        writer.add_rope_scaling_attn_factors(1 / own_amplitude(config))
    elif rope.rope_type == "yarn":
        writer.add_rope_scaling_attn_factors(rope.amplitude / own_amplitude(config))


def _add_latent_attention(writer: GGUFWriter, config: ModelConfig) -> None:
    rank, nope, rope, value = (
        config.kv_lora_rank, config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
    )  # fmt: skip
    assert rank is not None and nope is not None and rope is not None and value is not None
    writer.add_head_count_kv(1)  # one key for all heads: the latent itself
    writer.add_key_length(rank + rope)
    writer.add_value_length(rank)
    writer.add_key_length_mla(nope + rope)
    writer.add_value_length_mla(value)
    writer.add_kv_lora_rank(rank)
    writer.add_q_lora_rank(config.q_lora_rank or 0)


def _add_experts(writer: GGUFWriter, config: ModelConfig) -> None:
    writer.add_expert_count(config.num_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_feed_forward_length(config.expert_width)
    if config.model_type == "qwen2_moe":
        writer.add_expert_shared_feed_forward_length(config.n_shared_experts * config.expert_width)
    if architecture(config) in ("qwen2moe", "qwen3moe"):
        return
    sigmoid = config.scoring_func == "sigmoid"
    gating = ExpertGatingFuncType.SIGMOID if sigmoid else ExpertGatingFuncType.SOFTMAX
    writer.add_leading_dense_block_count(config.first_k_dense_replace)
    writer.add_expert_shared_count(max(config.n_shared_experts, 1))
    writer.add_expert_gating_func(gating)
    writer.add_expert_weights_norm(config.norm_topk_prob)
    writer.add_expert_weights_scale(config.routed_scaling_factor)
    if config.topk_group < config.n_group:  # llama.cpp refuses groups that restrict nothing
        writer.add_expert_group_count(config.n_group)
        writer.add_expert_group_used_count(config.topk_group)
