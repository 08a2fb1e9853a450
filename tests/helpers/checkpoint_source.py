"""A small checkpoint on disk, as the source of an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mengya.export.source import Source
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import write_folder
from mengya.tokenizer.load import load_tokenizer
from tests.helpers.random_model import random_model


def checkpoint_source(tokenizer_folder: Path, folder: Path, **changes: Any) -> Source:
    """A random model of two layers; `changes` are fields of ModelConfig."""
    tokenizer = load_tokenizer(tokenizer_folder)
    values = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }  # fmt: skip
    model = random_model(ModelConfig(**{**values, **changes}))
    write_folder(model, tokenizer, tokenizer_folder, torch.float32, folder)
    return Source(model, tokenizer, folder)
