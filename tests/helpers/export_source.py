"""Sources of exports: tiny random models with small tokenizers of our own."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from mengya.export.source import Source
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
