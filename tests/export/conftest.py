"""A small source of exports: random weights that all matter, and a tokenizer of a page of Chinese."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from mengya.export.source import Source
from mengya.models.hf.checkpoint import write_folder
from tests.helpers.random_model import random_model, tiny_config
from tests.tokenizer.conftest import corpus, tokenizer, tokenizer_folder

__all__ = ["corpus", "tokenizer", "tokenizer_folder"]


@pytest.fixture(scope="session")
def source(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: PreTrainedTokenizerFast,
    tokenizer_folder: Path,
) -> Source:
    folder = tmp_path_factory.mktemp("source")
    config = tiny_config("Qwen3", vocab_size=len(tokenizer), max_position_embeddings=128)
    model = random_model(config)
    write_folder(model, tokenizer, tokenizer_folder, torch.float32, folder)
    return Source(model, tokenizer, folder)
