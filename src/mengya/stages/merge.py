"""`mengya merge`: an adapter and its base, or positions frozen at one factor, as a standard folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from rich.console import Console

from mengya.config import Config
from mengya.errors import UserError
from mengya.models.adapters.lora import base_folder, load_merged, trained_tokens
from mengya.models.extensions.freeze import freeze_rope
from mengya.models.hf.checkpoint import load_causal_lm, write_folder
from mengya.models.hf.open_checkpoint import ADAPTER, find_checkpoint
from mengya.runtime.output_folder import FolderKind, new_folder
from mengya.tokenizer.added import read_added
from mengya.tokenizer.load import load_tokenizer


class MergeConfig(Config):
    checkpoint: Path
    """Adapter folder, as `mengya sft` and `mengya dpo` write with lora, or the folder of such a run; with
    factor also a model of learned positions."""
    out: Path
    """Folder to write."""
    overwrite: bool = False
    """Replace the folder that an earlier run of this verb wrote to `out`."""
    base: Path | None = None
    """Base folder or run folder; null: the one named in adapter_config.json."""
    factor: float | None = Field(default=None, ge=1)
    """Freeze learned positions at this factor (rope_type=longrope, which transformers can load)."""
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    """dtype of the saved weights."""


def run(config: MergeConfig) -> None:
    checkpoint = find_checkpoint(config.checkpoint)
    base = None if config.base is None else find_checkpoint(config.base)
    if config.factor is None and not (checkpoint / ADAPTER).is_file():
        raise UserError(
            f"{checkpoint} is not a LoRA adapter, there is nothing to merge: use the folder as it is "
            "(a model of learned positions is frozen with factor=...)"
        )
    if base is not None and (base / ADAPTER).is_file():
        raise UserError(
            f"base={config.base} is a LoRA adapter itself; merge it first: mengya merge {base} out=FOLDER"
        )
    inputs = [checkpoint] if base is None else [checkpoint, base]
    kind = FolderKind("merge", ())
    with new_folder(config.out, kind, overwrite=config.overwrite, inputs=inputs) as directory:
        _write(config, checkpoint, base, directory)
    Console(stderr=True).print(f"merged into {config.out}", highlight=False)


def _write(config: MergeConfig, checkpoint: Path, base: Path | None, directory: Path) -> None:
    """Write the merged model of `checkpoint` into `directory`."""
    is_adapter = (checkpoint / ADAPTER).is_file()
    model = load_merged(checkpoint, base) if is_adapter else load_causal_lm(checkpoint)
    if config.factor is not None:
        model = freeze_rope(model, config.factor)
    tokenizer = load_tokenizer(checkpoint)
    write_folder(model, tokenizer, checkpoint, getattr(torch, config.save_dtype), directory)
    if is_adapter and (added := read_added(base or base_folder(checkpoint))):
        added.trained(trained_tokens(checkpoint)).write(directory)
