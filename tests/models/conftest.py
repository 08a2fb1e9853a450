"""Tiny models of every class, with every weight away from its initial value, and their oracles."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from tests.helpers.oracle import oracle_of
from tests.helpers.random_model import FAMILIES, random_model, tiny_config


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def config(family: str) -> ModelConfig:
    return tiny_config(family)


@pytest.fixture
def model(config: ModelConfig) -> CausalLM:
    return random_model(config)


@pytest.fixture
def oracle(model: CausalLM) -> Any:
    return oracle_of(model)


@pytest.fixture
def input_ids(config: ModelConfig) -> torch.Tensor:
    """[3, 20] tokens."""
    return torch.randint(config.vocab_size, (3, 20), generator=torch.Generator().manual_seed(7))
