"""`mengya merge`: a LoRA adapter and its base become one standard folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from mengya.config import Config, UserError
from mengya.models.lora import load_merged
from mengya.runtime import whole_directory
from mengya.stages.folder import write_folder
from mengya.tokenizer.load import load_tokenizer


class MergeConfig(Config):
    checkpoint: Path
    """Adapter folder, as `mengya sft` and `mengya dpo` write with lora."""
    out: Path
    """Folder to write; must not exist."""
    base: Path | None = None
    """Base folder; null takes the one that adapter_config.json names."""
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    """dtype of the saved weights."""


def run(config: MergeConfig) -> None:
    if config.out.exists():
        raise UserError(f"{config.out} exists; choose another folder for out=")
    model = load_merged(config.checkpoint, config.base)
    tokenizer = load_tokenizer(config.checkpoint)
    with whole_directory(config.out) as directory:
        write_folder(
            model, tokenizer, config.checkpoint, getattr(torch, config.save_dtype), directory
        )
    Console(stderr=True).print(f"merged into {config.out}", highlight=False)
