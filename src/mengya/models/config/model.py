"""A checked model configuration, and which transformers class it is. Needs no torch."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveInt, ValidationError, model_validator

from mengya.config import Config
from mengya.errors import UserError
from mengya.models.config.quantization import TrainedQuantization
from mengya.models.config.rope import RopeParameters
from mengya.models.config.shape import ModelShape
from mengya.models.config.validation import problems


class ContextExtension(Config):
    """A longer context of a trained model (key `stretch`): the weights stay, the positions change."""

    max_position_embeddings: PositiveInt
    """The model's new context; with rope_type=dynamic the trained one, which factor multiplies."""
    rope_parameters: RopeParameters = RopeParameters()
    """How positions are scaled; without it they just continue."""


class ModelConfig(ModelShape):
    """A decoder: GQA or latent attention with RoPE, SwiGLU or a mixture of SwiGLU experts, RMSNorm.

    A few fields choose the transformers class that a checkpoint is saved as:

    - kv_lora_rank set -> DeepseekV3, dense or with experts;
    - num_experts > 0: scoring_func sigmoid -> Glm4Moe; softmax -> Qwen3Moe, or Qwen2Moe with
      n_shared_experts;
    - otherwise qk_norm -> Qwen3, attention_bias -> Qwen2, neither -> Llama.
    """

    @model_validator(mode="after")
    def _possible(self) -> ModelConfig:
        self.rope_parameters = self.rope_parameters.with_factor(self.max_position_embeddings)
        found = list(problems(self))
        if found:
            raise ValueError("; ".join(found))
        return self

    def extend_context(self, stretch: ContextExtension) -> ModelConfig:
        """The same model with other positions.

        Raises:
            UserError: a combination that cannot be.
        """
        return self._changed("stretch", stretch.model_dump())

    def quantized(self, quantization: TrainedQuantization | None) -> ModelConfig:
        """The same model with weights rounded so; None: as it is.

        Raises:
            UserError: a combination that cannot be.
        """
        if quantization is None:
            return self
        return self._changed("quantization", {"quantization": quantization.model_dump()})

    def _changed(self, key: str, values: dict[str, Any]) -> ModelConfig:
        try:
            return ModelConfig(**self.model_dump() | values)
        except ValidationError as error:
            reasons = [e["msg"].removeprefix("Value error, ") for e in error.errors()]
            raise UserError(f"{key}: {'; '.join(reasons)}") from error
