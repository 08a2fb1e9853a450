"""Sources of exports: tiny random models with small tokenizers of our own."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from mengya.export.source import Source
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import write_folder
from mengya.tokenizer.load import load_tokenizer
from mengya.tokenizer.train import train_tokenizer
from tests.helpers.random_model import random_model, tiny_config

_TEXT = "今天天气不错，我们去公园散步。Hello world 123, it's fine.\n\n    def f(x): return x\n"
UNUSED_ROWS = 5  # of the embedding, beyond the tokenizer


@cache
def small_tokenizer() -> PreTrainedTokenizerFast:
    """Some 330 tokens; shared, so not to be changed."""
    return train_tokenizer([_TEXT * 50], vocab_size=330, show_progress=False)


def small_source(family: str, folder: Path, **changes: Any) -> Source:
    """Rows that 4-bit blocks divide, a head width that hidden_size does not give where a class allows it.

    Args:
        folder: the checkpoint that it is said to come from.
        changes: fields of ModelConfig.
    """
    tokenizer = small_tokenizer()
    values = {
        "vocab_size": len(tokenizer) + UNUSED_ROWS, "hidden_size": 64, "intermediate_size": 96,
        "max_position_embeddings": 128, **changes,
    }  # fmt: skip
    return Source(random_model(tiny_config(family, **values)), tokenizer, folder)


def export_source(tokenizer_folder: Path, folder: Path, **changes: Any) -> Source:
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
