"""What `export` and `quantize` share: the keys of the proof, its text, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import Field
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from mengya.config import Config, OneOrMany
from mengya.data.ingest.reading.records import BadLines
from mengya.data.ingest.texts import TextSource, read_texts
from mengya.evaluation.likelihood.held_out import texts_of_shards
from mengya.export.identity import identify
from mengya.export.parity.bounds import Bounds, BoundsOverride
from mengya.export.parity.held_out import HeldOut, first_held_out, own_held_out
from mengya.export.parity.prove import prove
from mengya.export.parity.result import Parity
from mengya.export.parity.tables import parity_note, parity_table
from mengya.export.reader import Reader
from mengya.export.source import Source
from mengya.models.causal_lm import CausalLM
from mengya.tokenizer.load import tokenizer_hash


class ParityConfig(Config):
    """How what is written is compared with the source."""

    texts: OneOrMany[TextSource] = []
    """Held-out text for nats per token; a path alone means {path: ...}. Without it and text_shards: fourteen
    short texts of mengya."""
    text_shards: OneOrMany[Path] = []
    """Held-out text as shards made with the checkpoint's tokenizer."""
    max_characters: int = Field(default=4000, ge=100)
    """The first so many characters of it are measured."""
    bounds: BoundsOverride = BoundsOverride()
    """Bounds in place of the format's own."""


def held_out_of(config: ParityConfig, folder: Path, tokenizer: PreTrainedTokenizerFast) -> HeldOut:
    """The text that the keys name, or ours.

    Raises:
        UserError: it cannot be read, there is none, or shards are of another tokenizer.
    """
    if not config.texts and not config.text_shards:
        return own_held_out()
    texts = [one for source in config.texts for one in _paths(source)]
    names = [Path(one).name for one in (*texts, *config.text_shards)]  # they become public
    documents = chain(
        read_texts(config.texts, BadLines(0)),
        texts_of_shards(config.text_shards, tokenizer, tokenizer_hash(folder)),
    )
    return first_held_out(", ".join(names), documents, config.max_characters)


def _paths(source: TextSource) -> list[str]:
    return [source.path] if isinstance(source.path, str) else list(source.path)


def prove_written(
    config: ParityConfig,
    source: Source,
    readers: Iterable[Reader],
    bounds: Bounds,
    directory: Path,
    out: Path,
    what: Mapping[str, Any],
    written: CausalLM | None = None,
) -> Parity:
    """Compare what was written into `directory` with the source, print the table, write parity.json.

    Args:
        bounds: of the format, for a dense model.
        out: what `directory` will be called.
        what: for parity.json: what was written.
        written: the source's model with the numbers that were written, where they were rounded.

    Raises:
        UserError: a bound is missed, or the text to measure on cannot be read.
    """
    held_out = held_out_of(config, source.folder, source.tokenizer)
    bounds = bounds.for_experts() if source.model.config.num_experts else bounds
    parity = prove(
        source.model,
        source.tokenizer,
        readers,
        bounds.loosened(config.bounds),
        held_out,
        written=written,
        source={**what, **identify(source.folder)},
        loosened=config.bounds.given(),
    )
    console = Console(stderr=True)
    console.print(parity_table(parity))
    console.print(parity_note(parity), highlight=False, markup=False, soft_wrap=True)
    parity.require(out)
    parity.write(directory)
    return parity
