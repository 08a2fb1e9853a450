"""What lists of models say of a model, which needs no weights: its shape, size, dtype and chat template."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.tokenizer.chat_template import chat_template_of


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """
    Attributes:
        parameters: their number; tied ones count once.
        template: the chat template of the tokenizer, "" where none fits; base models may have one, too.
    """

    config: ModelConfig
    parameters: int
    dtype: torch.dtype
    template: str


def facts_of(model: CausalLM, tokenizer: PreTrainedTokenizerFast) -> ModelFacts:
    """Facts of a model on any device, also meta."""
    try:
        template = chat_template_of(tokenizer)
    except UserError:  # of a base model without one, none is needed
        template = ""
    return ModelFacts(
        config=model.config,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        dtype=model.model.norm.weight.dtype,
        template=template,
    )
