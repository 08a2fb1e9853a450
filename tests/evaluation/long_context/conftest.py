"""A model of random weights with room for documents, with the tokenizer of the tiny checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mengya.evaluation.subject import Subject
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.tokenizer.load import load_tokenizer


def random_subject(checkpoint: Path, context: int) -> Subject:
    """A base model with that context."""
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=context,
        tie_word_embeddings=False, initializer_range=0.3,
    )  # fmt: skip
    return Subject(CausalLM(config).eval(), load_tokenizer(checkpoint), checkpoint, chat=False)


@pytest.fixture(scope="session")
def subject(checkpoint: Path) -> Subject:
    return random_subject(checkpoint, 1024)
