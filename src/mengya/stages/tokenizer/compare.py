"""`mengya tokenizer compare A B ... texts=FILES`: tokenizers side by side on the same text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from mengya.config import Config, OneOrMany
from mengya.data.ingest.reading.files import find_files
from mengya.data.ingest.reading.records import BadLines
from mengya.data.ingest.texts import TextSource, read_texts
from mengya.errors import UserError
from mengya.runtime.files import write_text
from mengya.stages.tokenizer.names import short_names
from mengya.text.scripts import SCRIPTS, scripts_of
from mengya.tokenizer.compare import Comparison, Part, compare
from mengya.tokenizer.sentencepiece_model import MODEL_FILE
from mengya.tokenizer.vocabulary_file import open_tokenizer

# Scripts as the table names them.
_GROUPS = {
    "Chinese": ("han", "simplified", "traditional"),
    "Latin": ("latin",),
    "digits": ("digit",),
    "punctuation": ("punctuation",),
    "white space": ("space",),
    "symbols, emoji": ("symbol",),
    "other": ("kana", "hangul", "other", "garbage"),
}
_GROUP_OF = np.array(
    [next(n for n, names in enumerate(_GROUPS.values()) if script in names) for script in SCRIPTS]
)


class TokenizerCompareConfig(Config):
    tokenizers: OneOrMany[Path] = Field(min_length=1)
    """Tokenizer folders, .model and .tiktoken files."""
    texts: OneOrMany[TextSource] = Field(min_length=1)
    """Text to compare on, every file a domain; a plain path stands for {path: ...}."""
    max_characters: int = Field(default=2_000_000, ge=1)
    """The beginnings of the files, together at most this."""
    context: int = Field(default=2048, ge=1)
    """How many documents are longer than this many tokens."""
    hidden_size: int = Field(default=512, ge=1)
    """Of the model whose embedding is counted."""
    json_file: Path | None = None
    """Write all numbers to this file too."""
    max_bad_lines: int = Field(default=100, ge=0)
    """Unreadable lines to skip before giving up."""
    overwrite: bool = False
    """Replace `json_file`."""


def run(config: TokenizerCompareConfig) -> dict[str, Comparison]:
    """Print the tables and give the numbers, by the path of the tokenizer.

    Raises:
        UserError: a tokenizer or a text cannot be read.
    """
    if config.json_file is not None and config.json_file.exists() and not config.overwrite:
        raise UserError(
            f"json_file={config.json_file} exists; write overwrite=true or another json_file"
        )
    domains = _read(config)
    found: dict[str, Comparison] = {}
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        for path in progress.track(config.tokenizers, description="comparing"):
            found[str(path)] = compare(
                open_tokenizer(path),
                domains,
                lambda text: _GROUP_OF[scripts_of(text)],
                list(_GROUPS),
                context=config.context,
                hidden_size=config.hidden_size,
            )
    for table in _tables(found, config.hidden_size):
        Console().print(table)
    if config.json_file is not None:
        values = {path: _plain(one) for path, one in found.items()}
        text = json.dumps(values, ensure_ascii=False, indent=2)
        write_text(config.json_file, text + "\n")
    return found


def _read(config: TokenizerCompareConfig) -> dict[str, list[str]]:
    """The beginning of every file, as much of each."""
    files = [(source, path) for source in config.texts for path in find_files(source.path)]
    room = max(1, config.max_characters // len(files))
    bad = BadLines(config.max_bad_lines)
    names = short_names([str(path) for _, path in files])
    found: dict[str, list[str]] = {}
    for name, (source, path) in zip(names, files, strict=True):
        one = source.model_copy(update={"path": str(path)})
        found[name] = list(_first(read_texts([one], bad), room))
    return found


def _first(texts: Iterable[str], characters: int) -> Iterable[str]:
    for text in texts:
        yield text[:characters]
        characters -= len(text)
        if characters <= 0:
            return


def _plain(one: Comparison) -> dict[str, Any]:
    values = asdict(one)
    for group in ("domains", "scripts"):
        for name, part in getattr(one, group).items():
            values[group][name]["characters_per_token"] = part.characters_per_token
            values[group][name]["bytes_per_token"] = part.bytes_per_token
    return values


def _tables(found: dict[str, Comparison], hidden_size: int) -> Iterable[Table]:
    """Tokenizers have a number in the first, and go by it in the others: ten fit into 80 columns."""
    yield _legend(found, hidden_size)
    yield _totals(found)
    yield _by(found, "characters per token by script", lambda one: one.scripts)
    yield _by(found, "characters per token by file", lambda one: one.domains)
    yield _numbers(found)


def _table(title: str, first: str, others: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _legend(found: dict[str, Comparison], hidden_size: int) -> Table:
    table = _table("tokenizers", "", ())
    table.add_column("", overflow="fold")
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column(f"embedding at hidden size {hidden_size}", justify="right")
    folders = (Path(p).parent if Path(p).name == MODEL_FILE else Path(p) for p in found)
    names = short_names([str(path) for path in folders])
    for number, (name, one) in enumerate(zip(names, found.values(), strict=True), 1):
        size = f"{one.embedding_parameters / 1e6:.1f}M parameters"
        table.add_row(str(number), Text(name), f"{one.total.vocab_size:,}", size)
    return table


def _totals(found: dict[str, Comparison]) -> Table:
    context = next(iter(found.values())).total.context
    title = (
        "all text: characters and bytes per token; documents that decode exactly; tokens that are unknown, "
        f"or bytes of characters; documents of more than {context:,} tokens; MB/s on one core"
    )
    columns = ("chars/tok", "bytes/tok", "exact", "unknown", "byte", f"> {context}", "MB/s")
    table = _table(title, "", columns)
    for number, one in enumerate(found.values(), 1):
        total = one.total
        table.add_row(
            str(number),
            f"{total.characters_per_token:.3f}",
            f"{total.bytes_per_token:.3f}",
            f"{total.exact:.1%}",
            f"{total.unknown:.2%}",
            f"{one.byte_tokens:.2%}",
            f"{total.truncated:.1%}",
            f"{one.megabytes_per_second:.1f}",
        )
    return table


def _by(
    found: dict[str, Comparison], title: str, parts: Callable[[Comparison], dict[str, Part]]
) -> Table:
    table = _table(title, "", ("share", *(str(n) for n in range(1, len(found) + 1))))
    compared = [parts(one) for one in found.values()]
    total = sum(part.characters for part in compared[0].values())
    for name, part in compared[0].items():
        ratios = (f"{one[name].characters_per_token:.2f}" for one in compared)
        table.add_row(Text(name), f"{part.characters / total:.1%}", *ratios)
    return table


def _numbers(found: dict[str, Comparison]) -> Table:
    title = (
        "tokens of numbers, digits in each; tokens of indentation; characters per token of Python"
    )
    table = _table(title, "", map(str, range(1, len(found) + 1)))
    first = next(iter(found.values()))
    for number in first.numbers:
        table.add_row(number, *(str(len(one.numbers[number])) for one in found.values()))
    digits = next(iter(first.numbers))
    table.add_row("digits", *(_runs(list(map(len, one.numbers[digits]))) for one in found.values()))
    for spaces in first.indentation:
        counts = (str(one.indentation[spaces]) for one in found.values())
        table.add_row(f"{spaces} spaces", *counts)
    table.add_row("Python", *(f"{one.code:.2f}" for one in found.values()))
    return table


def _runs(lengths: list[int]) -> str:
    """`7x1` for seven tokens of one digit, `3+2+2` for what is not all alike."""
    if len(lengths) > 1 and len(set(lengths)) == 1:
        return f"{len(lengths)}x{lengths[0]}"
    return "+".join(map(str, lengths))
