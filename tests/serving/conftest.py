"""A server that answers, with a tiny random model, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from mengya.models.adapters.lora import LoraConfig, add_lora, save_adapter
from mengya.tokenizer.train import train_tokenizer
from tests.helpers.live_server import POEM, Running, serving, tiny_model


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer([POEM] * 2, 300, show_progress=False)


@pytest.fixture(scope="session")
def server(tokenizer: PreTrainedTokenizerFast) -> Iterator[Running]:
    with serving(tokenizer) as running:
        yield running


@pytest.fixture
def client(server: Running) -> openai.OpenAI:
    return server.client


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters of different ranks and targets that both change what the model says."""
    folders = {}
    for seed, (name, targets) in enumerate({"poet": None, "clerk": ["q_proj", "v_proj"]}.items()):
        model = add_lora(tiny_model(), LoraConfig(rank=2 + seed, targets=targets))
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if ".lora_B." in parameter_name:
                    parameter.normal_(std=0.3)
        folders[name] = tmp_path_factory.mktemp(name)
        save_adapter(model, folders[name], "tiny")
    return folders
