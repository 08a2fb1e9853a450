"""What lists of models say of a model, which needs no weights: its shape, size, dtype and chat template."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.generation.batch.memory import weight_bytes
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.quantized.layers import number_names, parameter_count
from mengya.tokenizer.chat_template import chat_template_of


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """
    Attributes:
        parameters: their number; tied ones count once.
        size: bytes of weights.
        numbers: what the weights are, such as float32 or int4.
        template: the chat template of the tokenizer, "" where none fits; base models may have one, too.
    """

    config: ModelConfig
    parameters: int
    size: int
    numbers: str
    template: str


def facts_of(model: CausalLM, tokenizer: PreTrainedTokenizerFast) -> ModelFacts:
    """Facts of a model on any device, also meta."""
    try:
        template = chat_template_of(tokenizer)
    except UserError:  # of a base model without one, none is needed
        template = ""
    return ModelFacts(
        config=model.config,
        parameters=parameter_count(model),
        size=weight_bytes(model, packed=False),
        numbers=number_names(model) or str(model.model.norm.weight.dtype).removeprefix("torch."),
        template=template,
    )
