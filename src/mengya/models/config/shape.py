"""The fields of a model's shape, in transformers' own names, and the sizes that follow. Needs no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from mengya.config import Config
from mengya.models.config.quantization import TrainedQuantization
from mengya.models.config.rope import RopeParameters

ModelType = Literal[
    "qwen3", "llama", "qwen2", "qwen3_moe", "qwen2_moe", "glm4_moe", "deepseek_v3"
]  # fmt: skip


class ModelShape(Config):
    """What a `ModelConfig` holds, before its rules (validation.py) are checked."""

    vocab_size: PositiveInt = 6400
    """Rows of the embedding. Left out of a recipe: the tokenizer's ids; with more, the rest is no token's."""
    hidden_size: PositiveInt = 512
    """Width of the residual stream."""
    intermediate_size: PositiveInt = 1408
    """Width of the SwiGLU feed-forward layer (dense layers)."""
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
    sliding_window: PositiveInt | None = None
    """Layers from max_window_layers on see this many tokens only, the last ones, their own included (Qwen3
    and Qwen2 without experts); null: every layer sees all."""
    max_window_layers: int = Field(default=0, ge=0)
    """With sliding_window: this many first layers see all."""
    training_sequence_length: PositiveInt | None = None
    """Longest row that the model was trained on, in tokens; training writes it, `mengya evaluate` measures at
    it. null: not known."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of the initial weights."""
    quantization: TrainedQuantization | None = None
    """Round the weights of the layers in training and ever after: ternary (BitNet b1.58), or
    {bits: 2, group_size: 32}; null: full weights (docs/quantization.md)."""

    kv_lora_rank: PositiveInt | None = None
    """Multi-head latent attention: width of the latent that keys and values are made of; null: GQA."""
    q_lora_rank: PositiveInt | None = None
    """Latent attention: width of the queries' own latent; null: queries straight from the hidden state."""
    qk_nope_head_dim: PositiveInt | None = None
    """Latent attention: width of each query and key head that has no position."""
    qk_rope_head_dim: PositiveInt | None = None
    """Latent attention: width that RoPE rotates; one such key is shared by all heads."""
    v_head_dim: PositiveInt | None = None
    """Latent attention: width of each value head."""

    num_experts: int = Field(default=0, ge=0)
    """Number of routed experts in a layer; 0 is a dense model."""
    num_experts_per_tok: PositiveInt = 2
    """Experts that each token is sent to."""
    moe_intermediate_size: PositiveInt | None = None
    """Width of one expert; null: intermediate_size."""
    n_shared_experts: int = Field(default=0, ge=0)
    """Experts that every token passes through as well; they are one SwiGLU of this many times the width."""
    first_k_dense_replace: int = Field(default=0, ge=0)
    """This many first layers are dense, of intermediate_size."""
    scoring_func: Literal["softmax", "sigmoid"] = "softmax"
    """Router: softmax over all experts, or a sigmoid for each, balanced by a bias (DeepSeek-V3)."""
    norm_topk_prob: bool = True
    """Scale the weights of the chosen experts to sum to one; not for a single one: its weight would be 1."""
    routed_scaling_factor: PositiveFloat = 1.0
    """sigmoid: the routed experts' sum is multiplied by this."""
    n_group: PositiveInt = 1
    """sigmoid: number of groups of experts, of equal size."""
    topk_group: PositiveInt = 1
    """sigmoid: a token chooses among the experts of this many best groups only."""
    router_bias_update_speed: float = Field(default=0.001, ge=0)
    """sigmoid: how far one step moves the bias of an expert that is over or under the mean load."""
    router_aux_loss_coef: float | None = Field(default=None, ge=0)
    """Weight of the load-balancing loss in training; null: 0.01 with softmax, 0 with sigmoid."""

    def slides(self, layer: int) -> bool:
        """Whether a layer sees the sliding window only."""
        return self.sliding_window is not None and layer >= self.max_window_layers

    @property
    def head_width(self) -> int:
        """Width of a query and key head."""
        if self.kv_lora_rank is not None:
            return (self.qk_nope_head_dim or 0) + (self.qk_rope_head_dim or 0)
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def rotary_width(self) -> int:
        """Numbers of each head that RoPE rotates."""
        if self.kv_lora_rank is not None:
            return self.qk_rope_head_dim or 0
        return int(self.head_width * self.rope_parameters.partial_rotary_factor)

    @property
    def context_length(self) -> int:
        """Most tokens that the model reads: dynamic NTK stretches max_position_embeddings by factor."""
        rope = self.rope_parameters
        stretch = (rope.factor or 1) if rope.rope_type == "dynamic" else 1
        return int(self.max_position_embeddings * stretch)

    @property
    def cache_width(self) -> int:
        """Numbers that the KV cache holds for one token in one layer."""
        if self.kv_lora_rank is not None:
            return self.kv_lora_rank + self.rotary_width
        return 2 * self.num_key_value_heads * self.head_width

    @property
    def expert_width(self) -> int:
        """moe_intermediate_size with its default filled in."""
        return self.moe_intermediate_size or self.intermediate_size

    @property
    def aux_loss_coef(self) -> float:
        """router_aux_loss_coef with its default filled in."""
        if self.router_aux_loss_coef is not None:
            return self.router_aux_loss_coef
        return 0.01 if self.scoring_func == "softmax" else 0.0

    @property
    def num_moe_layers(self) -> int:
        """Layers with experts."""
        if not self.num_experts:
            return 0
        return max(self.num_hidden_layers - self.first_k_dense_replace, 0)

    @property
    def model_type(self) -> ModelType:
        """transformers' `model_type`."""
        if self.kv_lora_rank is not None:
            return "deepseek_v3"
        if self.num_experts:
            if self.scoring_func == "sigmoid":
                return "glm4_moe"
            return "qwen2_moe" if self.n_shared_experts else "qwen3_moe"
        if self.qk_norm:
            return "qwen3"
        return "qwen2" if self.attention_bias else "llama"
