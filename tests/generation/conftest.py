"""A tiny random model, and a tokenizer that fits it."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from mengya.models.causal_lm import CausalLM
from mengya.tokenizer.train import train_tokenizer
from tests.helpers.random_model import small_model


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(
        ["春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。"] * 2, 300, show_progress=False
    )


@pytest.fixture
def model() -> CausalLM:
    return small_model()
