"""`mengya extend CHECKPOINT out=FOLDER`: a model and its tokenizer with more tokens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from rich.console import Console

from mengya.config import Config, OneOrMany
from mengya.data.ingest.reading.records import BadLines
from mengya.data.ingest.texts import TextSource, read_texts
from mengya.errors import UserError
from mengya.models.hf.checkpoint import check_vocabulary, load_causal_lm, write_folder
from mengya.models.hf.open_checkpoint import ADAPTER, find_checkpoint
from mengya.models.hf.vocabulary import extend_vocabulary
from mengya.runtime.output_folder import FolderKind, new_folder
from mengya.runtime.training_data import copy_training_data
from mengya.tokenizer.added import AddedTokens, read_added
from mengya.tokenizer.extend import extend_tokenizer, learn_tokens
from mengya.tokenizer.load import load_tokenizer, save_tokenizer


class ExtendConfig(Config):
    checkpoint: Path
    """Model folder or run folder (its best, else latest, checkpoint)."""
    out: Path
    """Folder to write."""
    overwrite: bool = False
    """Replace the folder that an earlier run of this verb wrote to `out`."""
    tokens: list[str] = []
    """New tokens, such as [心肌梗死, 冠状动脉]."""
    special: bool = False
    """The given tokens are control tokens: decoding may skip them, and a person's text never is one."""
    sources: OneOrMany[TextSource] = []
    """Text of a domain, to learn new tokens from; a plain path stands for {path: ...}."""
    new_tokens: int = Field(default=1000, ge=1)
    """At most how many are learned from sources: the Chinese words that shorten the text most."""
    max_characters: int = Field(default=5_000_000, ge=1)
    """Longer text is sampled down to this."""
    max_bad_lines: int = Field(default=100, ge=0)
    """Unreadable lines to skip before giving up."""
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    """dtype of the saved weights."""

    @model_validator(mode="after")
    def _something(self) -> ExtendConfig:
        if not self.tokens and not self.sources:
            raise ValueError("nothing to add: give tokens=[...] or sources=FILE (or both)")
        if self.special and not self.tokens:
            raise ValueError("special=true is for tokens=[...]; learned tokens are ordinary text")
        return self


def run(config: ExtendConfig) -> None:
    folder = find_checkpoint(config.checkpoint)
    if (folder / ADAPTER).is_file():
        raise UserError(
            f"{folder} is a LoRA adapter; merge it first: mengya merge {folder} out=FOLDER"
        )
    sources = [source.path for source in config.sources]
    with new_folder(
        config.out,
        FolderKind("extend", ()),
        overwrite=config.overwrite,
        sources=sources,
        inputs=[folder],
    ) as directory:
        added, vocab_size = _write(config, folder, directory)
    Console(stderr=True).print(
        f"{len(added)} new tokens ({' '.join(added[:8])}{' ...' if len(added) > 8 else ''}), vocabulary "
        f"{vocab_size}, in {config.out}; prepare shards with it, then continue training with init_from",
        markup=False,
        highlight=False,
    )


def _write(config: ExtendConfig, folder: Path, directory: Path) -> tuple[list[str], int]:
    """Write the extended model of `folder` into `directory`; the new tokens and the new vocabulary size."""
    tokenizer = load_tokenizer(folder)
    model = load_causal_lm(folder)
    check_vocabulary(model, tokenizer)
    first, replaced = len(tokenizer), []
    added = list(config.tokens)
    if config.tokens:
        tokenizer, replaced = extend_tokenizer(tokenizer, config.tokens, config.special)
    if config.sources:
        learned = learn_tokens(
            tokenizer,
            read_texts(config.sources, BadLines(config.max_bad_lines)),
            config.new_tokens,
            max_characters=config.max_characters,
            show_progress=sys.stderr.isatty(),
        )
        added += learned
        tokenizer, more = extend_tokenizer(tokenizer, learned)
        # A learned token may be made of tokens that were added just now: what those replaced instead.
        replaced += [[i for id_ in ids for i in _old(id_, first, replaced)] for ids in more]
    model = extend_vocabulary(model, first, replaced)
    save_tokenizer(tokenizer, directory)
    dtype = getattr(torch, config.save_dtype)
    write_folder(model, tokenizer, directory, dtype, directory)
    copy_training_data(folder, directory)
    earlier, new = read_added(folder), tuple(range(first, first + len(replaced)))
    known = AddedTokens((), ()) if earlier is None else earlier
    AddedTokens((*known.ids, *new), (*known.untrained, *new)).write(directory)
    return added, model.config.vocab_size


def _old(id_: int, first: int, replaced: list[list[int]]) -> list[int]:
    return [id_] if id_ < first else replaced[id_ - first]
