"""`mengya export CHECKPOINT to=FORMAT out=FOLDER`: a checkpoint in the format of other programs, proven.

Writes, reads back by another program than ours, compares, and publishes the folder only if every bound is
kept; with parity.json and a model card.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import torch
from pydantic import model_validator
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from mengya.config import Config
from mengya.errors import UserError
from mengya.export.card.config import CardConfig
from mengya.export.card.render import FILE as CARD
from mengya.export.card.render import Written, read_about, write_card
from mengya.export.format import Format
from mengya.export.formats import FORMATS, FormatName, FormatOptions
from mengya.export.parity.result import Parity
from mengya.export.sampling_advice import SamplingAdvice
from mengya.export.source import Source
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import check_finite, check_vocabulary
from mengya.models.hf.config import load_quantization
from mengya.models.hf.open_checkpoint import ADAPTER, find_checkpoint, open_checkpoint
from mengya.models.quantized.full import full_weights
from mengya.models.quantized.load import load_dequantized
from mengya.planning.sizes import parameter_counts
from mengya.runtime.device import init_device
from mengya.runtime.output_folder import FolderKind, new_folder
from mengya.stages.written.proof import ParityConfig, prove_written
from mengya.tokenizer.load import load_tokenizer

# In the model card.
_NAMES = {
    "hf": "transformers folder", "modelscope": "transformers folder", "gguf": "GGUF",
    "ollama": "GGUF with a Modelfile", "llama2c": "llama2.c", "onnx": "ONNX",
}  # fmt: skip


class _Keys(Config):
    checkpoint: Path
    """Model folder, adapter folder (merged for the export), or run folder (its best, else latest,
    checkpoint)."""
    to: FormatName
    """Format; its options are under the key of its name."""
    out: Path | None = None
    """Folder to write; left out with a repository (hf.repo, modelscope.repo): the checkpoint is a folder that
    was exported before, of any format, and is pushed as it is."""
    overwrite: bool = False
    """Replace the folder that an earlier run of this verb wrote to `out`."""
    sampling: SamplingAdvice = SamplingAdvice()
    """Settings to advise wherever the format has a place for them, and in the model card."""
    parity: ParityConfig = ParityConfig()
    """The proof: what was written, read back by another program, answers as the checkpoint does."""
    card: CardConfig = CardConfig()
    """The model card, README.md of the folder."""


class ExportConfig(FormatOptions, _Keys):
    @model_validator(mode="after")
    def _only_its_options(self) -> ExportConfig:
        if other := sorted(self.model_fields_set & set(FORMATS) - {self.to}):
            raise ValueError(
                f"{other[0]}: options of another format than to={self.to}; leave them out, or write "
                f"to={other[0]}"
            )
        return self


def run(config: ExportConfig) -> Parity | None:
    """Write, prove and publish; the proof; None where a folder of earlier is pushed.

    Raises:
        UserError: the format cannot hold the checkpoint, or what was written is not the same model.
    """
    format_, options = FORMATS[config.to], getattr(config, config.to)
    if config.out is None:
        _push(config, format_, options)
        return None
    read_about(config.card.about)  # now, not when the work is done
    folder = find_checkpoint(config.checkpoint)
    with new_folder(
        config.out,
        FolderKind("export", ()),
        overwrite=config.overwrite,
        sources=[folder, *_read_paths(config)],
    ) as directory:
        source = _open(folder, config)
        format_.check(source, options)
        parity = _write_proven(config, source, format_, options, directory)
    format_.publish(config.out, options)
    console = Console(stderr=True)
    programs = ", ".join(reader.program for reader in parity.readers)
    lines = [f"written to {config.out}, proven by {programs}; how to use it: {CARD} in it"]
    if shell := [each.code for each in format_.usage(options) if each.language == "sh"]:
        lines += ["try it:", *shell[0].replace("FOLDER", shlex.quote(str(config.out))).splitlines()]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    return parity


def _read_paths(config: ExportConfig) -> list[str | Path]:
    """Of the proof's text."""
    paths: list[str | Path] = [*config.parity.text_shards]
    for source in config.parity.texts:
        paths += [source.path] if isinstance(source.path, str) else source.path
    return paths


def _push(config: ExportConfig, format_: Format[Any], options: Config) -> None:
    """The checkpoint as it is.

    Raises:
        UserError: no repository is named; or the folder is not proven.
    """
    if getattr(options, "repo", None) is None:
        raise UserError(
            "out is missing: write out=FOLDER (only a folder that was exported before is pushed without it, "
            "with hf.repo=OWNER/NAME or modelscope.repo=OWNER/NAME)"
        )
    format_.publish(config.checkpoint, options)


def _full_checkpoint(folder: Path) -> tuple[CausalLM, PreTrainedTokenizerFast]:
    device = init_device("cpu")
    if (folder / ADAPTER).is_file() or load_quantization(folder) is None:
        return open_checkpoint(folder, device, torch.float32)
    model, tokenizer = load_dequantized(folder), load_tokenizer(folder)
    check_vocabulary(model, tokenizer)
    return model, tokenizer


def _open(folder: Path, config: ExportConfig) -> Source:
    """The checkpoint with full weights: an adapter is merged, small numbers are made full."""
    model, tokenizer = _full_checkpoint(folder)
    model = full_weights(model)
    check_finite(model, folder)
    card = config.card
    return Source(
        model, tokenizer, folder, config.sampling, card.name, card.license, tuple(card.languages)
    )


def _write_proven(
    config: ExportConfig, source: Source, format_: Format[Any], options: Config, directory: Path
) -> Parity:
    """Write into `directory`, compare, and write the model card.

    Raises:
        UserError: a bound is missed.
    """
    assert config.out is not None  # else it is a push
    format_.write(source, directory, options)
    parity = prove_written(
        config.parity,
        source,
        format_.readers(source, directory, options),
        format_.bounds(source, options),
        directory,
        config.out,
        {"format": config.to, "options": options.model_dump(mode="json")},
        format_.rounded(source, options),
    )
    counts = parameter_counts(source.model.config)
    written = Written(
        form=_form(config.to, options),
        parameters=counts.total,
        active=counts.active,
        usage=format_.usage(options),
        library_name=format_.library_name,
        tags=format_.tags,
    )
    write_card(config.card, source, written, parity, directory)
    return parity


def _form(name: str, options: Config) -> str:
    """The format and its type, as "gguf Q4_0"."""
    of = next((v for key in ("type", "dtype") if (v := getattr(options, key, None))), "")
    format_ = _NAMES.get(name, name)
    return f"{format_} {of}" if of and of != "auto" else format_
