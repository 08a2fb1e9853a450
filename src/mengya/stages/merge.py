"""`mengya merge`: a LoRA adapter merged into its base, or a CLEX model frozen at one factor, as a standard
folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from rich.console import Console

from mengya.config import Config
from mengya.errors import UserError
from mengya.models.adapters.lora import load_merged
from mengya.models.extensions.clex_folding import fold_clex
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.models.hf.folder import write_folder
from mengya.models.hf.open_checkpoint import ADAPTER, find_checkpoint
from mengya.runtime.files import whole_directory
from mengya.tokenizer.load import load_tokenizer


class MergeConfig(Config):
    checkpoint: Path
    """Adapter folder, as `mengya sft` and `mengya dpo` write with lora; with factor also a CLEX model."""
    out: Path
    """Folder to write; must not exist."""
    base: Path | None = None
    """Base folder; null: the one named in adapter_config.json."""
    factor: float | None = Field(default=None, ge=1)
    """Freeze the positions of a CLEX model at this factor, so that transformers can load it
    (rope_type=longrope)."""
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    """dtype of the saved weights."""


def run(config: MergeConfig) -> None:
    if config.out.exists():
        raise UserError(f"{config.out} exists; choose another folder for out=")
    checkpoint = config.checkpoint
    if config.factor is not None:
        checkpoint = find_checkpoint(checkpoint)
    if config.factor is None or (checkpoint / ADAPTER).is_file():
        model = load_merged(checkpoint, config.base)
    else:
        model = load_causal_lm(checkpoint)
    if config.factor is not None:
        model = fold_clex(model, config.factor)
    tokenizer = load_tokenizer(checkpoint)
    with whole_directory(config.out) as directory:
        write_folder(model, tokenizer, checkpoint, getattr(torch, config.save_dtype), directory)
    Console(stderr=True).print(f"merged into {config.out}", highlight=False)
