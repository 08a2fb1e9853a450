"""The shape of a model, in transformers' own field names, and which transformers class it is.

Takes numbers; gives a checked `ModelConfig` and its parameter counts. Needs no torch.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from mengya.config import Config
from mengya.models.rope_config import RopeParameters

ModelType = Literal["qwen3", "llama", "qwen2", "qwen3_moe"]


class ModelConfig(Config):
    """A decoder: grouped-query attention with RoPE, SwiGLU or a mixture of SwiGLU experts, RMSNorm.

    Three fields choose the transformers class that a checkpoint is saved as:
    qk_norm -> Qwen3, attention_bias -> Qwen2, neither -> Llama, num_experts > 0 -> Qwen3Moe.
    """

    vocab_size: PositiveInt = 6400
    """Number of token ids; must equal the tokenizer's."""
    hidden_size: PositiveInt = 512
    """Width of the residual stream."""
    intermediate_size: PositiveInt = 1408
    """Width of the SwiGLU feed-forward layer (dense models)."""
    num_hidden_layers: PositiveInt = 8
    """Number of decoder layers."""
    num_attention_heads: PositiveInt = 8
    """Number of query heads."""
    num_key_value_heads: PositiveInt = 2
    """Number of key and value heads: num_attention_heads is MHA, 1 is MQA, between is GQA."""
    head_dim: PositiveInt | None = None
    """Width of one head; null: hidden_size / num_attention_heads."""
    max_position_embeddings: PositiveInt = 2048
    """Longest context in tokens that the model is meant for (with dynamic NTK: that it is trained for)."""
    rope_theta: PositiveFloat = 10_000.0
    """Base of the rotary position frequencies."""
    rope_parameters: RopeParameters = RopeParameters()
    """Scaling of the positions for a longer context."""
    rms_norm_eps: PositiveFloat = 1e-6
    """Added to the mean square in RMSNorm."""
    tie_word_embeddings: bool = True
    """Use one matrix for the input embedding and the output layer."""
    qk_norm: bool = True
    """RMSNorm over each query and key head before RoPE (Qwen3)."""
    attention_bias: bool = False
    """Bias on the query, key and value projections (Qwen2)."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of the initial weights."""
    num_experts: int = Field(default=0, ge=0)
    """Number of experts in every layer; 0 is a dense model."""
    num_experts_per_tok: PositiveInt = 2
    """Experts that each token is sent to."""
    moe_intermediate_size: PositiveInt | None = None
    """Width of one expert; null: intermediate_size."""
    norm_topk_prob: bool = True
    """Scale the weights of the chosen experts to sum to one."""
    router_aux_loss_coef: float = Field(default=0.01, ge=0)
    """Weight of the load-balancing loss in training."""

    @model_validator(mode="after")
    def _possible(self) -> ModelConfig:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self):
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        if heads % kv_heads:
            divisors = ", ".join(str(d) for d in range(1, heads + 1) if heads % d == 0)
            yield (
                f"num_attention_heads={heads} is not a multiple of num_key_value_heads={kv_heads}; "
                f"use num_key_value_heads of {divisors}"
            )
        if self.head_dim is None and self.hidden_size % heads:
            yield (
                f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads={heads}; "
                "change one of them or set head_dim"
            )
        elif self.head_width % 2:
            yield f"head_dim={self.head_width} is odd, RoPE turns pairs; use an even head_dim"
        yield from self._rope_problems()
        if self.qk_norm and self.attention_bias:
            yield (
                "qk_norm and attention_bias together exist in no transformers class that we write; "
                "set qk_norm=false (Qwen2) or attention_bias=false (Qwen3)"
            )
        if self.num_experts and not (self.qk_norm and not self.attention_bias):
            yield (
                f"num_experts={self.num_experts} is saved as Qwen3Moe, which always has qk_norm "
                "and no attention_bias; set qk_norm=true attention_bias=false, or num_experts=0"
            )
        if self.num_experts and self.num_experts_per_tok > self.num_experts:
            yield (
                f"num_experts_per_tok={self.num_experts_per_tok} is more than "
                f"num_experts={self.num_experts}; lower it"
            )

    def _rope_problems(self):
        rope = self.rope_parameters
        original = rope.original_max_position_embeddings
        if original is not None and self.max_position_embeddings < original:
            yield (
                f"max_position_embeddings={self.max_position_embeddings} is the stretched context of "
                f"rope_type=yarn and less than original_max_position_embeddings={original}; "
                f"write max_position_embeddings={int(original * (rope.factor or 1))}"
            )
        if rope.partial_rotary_factor != 1:
            yield (
                f"partial_rotary_factor={rope.partial_rotary_factor} exists in no transformers class "
                "that this shape is saved as; remove it"
            )

    @property
    def head_width(self) -> int:
        """head_dim with its default filled in."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def rotary_width(self) -> int:
        """Numbers of each head that RoPE turns."""
        return int(self.head_width * self.rope_parameters.partial_rotary_factor)

    @property
    def context_length(self) -> int:
        """Most tokens that the model reads: dynamic NTK stretches max_position_embeddings by factor."""
        rope = self.rope_parameters
        stretch = (rope.factor or 1) if rope.rope_type == "dynamic" else 1
        return int(self.max_position_embeddings * stretch)

    @property
    def expert_width(self) -> int:
        """moe_intermediate_size with its default filled in."""
        return self.moe_intermediate_size or self.intermediate_size

    @property
    def model_type(self) -> ModelType:
        """transformers' `model_type`."""
        if self.num_experts:
            return "qwen3_moe"
        if self.qk_norm:
            return "qwen3"
        return "qwen2" if self.attention_bias else "llama"


class ParameterCounts(NamedTuple):
    """Numbers of parameters; a tied embedding counts once."""

    total: int
    """All parameters."""
    active: int
    """Those that one token passes through (a mixture uses num_experts_per_tok of its experts)."""
    embedding: int
    """Input embedding and, when not tied, output layer."""


def parameter_counts(config: ModelConfig) -> ParameterCounts:
    """Count the parameters of `CausalLM(config)` without building it."""
    hidden, head = config.hidden_size, config.head_width
    q_width = config.num_attention_heads * head
    kv_width = config.num_key_value_heads * head
    attention = hidden * (q_width + 2 * kv_width) + q_width * hidden
    attention += (q_width + 2 * kv_width) if config.attention_bias else 0
    attention += 2 * head if config.qk_norm else 0
    norms = 2 * hidden
    if config.num_experts:
        expert = 3 * hidden * config.expert_width
        router = config.num_experts * hidden
        stored = router + config.num_experts * expert
        used = router + config.num_experts_per_tok * expert
    else:
        stored = used = 3 * hidden * config.intermediate_size
    embedding = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
    layers = config.num_hidden_layers
    shared = embedding + layers * (attention + norms) + hidden
    return ParameterCounts(shared + layers * stored, shared + layers * used, embedding)
