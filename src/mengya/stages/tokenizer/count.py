"""`mengya tokenizer count TOKENIZER sources=FILES`: the tokens of files, by field."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from mengya.config import Config, OneOrMany
from mengya.data.ingest.reading.files import find_files
from mengya.data.ingest.reading.read import parse_chunk, read_chunks
from mengya.data.ingest.reading.records import BadLine, BadLines
from mengya.data.shards import token_dtype
from mengya.errors import UserError
from mengya.runtime.files import write_text
from mengya.stages.tokenizer.names import short_names
from mengya.tokenizer.count import Count, TokenCounter
from mengya.tokenizer.vocabulary_file import open_tokenizer

_SHOWN_FIELDS = 20  # of a file


class TokenizerCountConfig(Config):
    tokenizer: Path
    """A tokenizer folder, a .model or a .tiktoken file."""
    sources: OneOrMany[str] = Field(min_length=1)
    """Files, folders and globs of any format that `mengya prepare` reads."""
    fields: OneOrMany[str] = []
    """Only these fields, such as text or conversations.value; without it every field that holds text."""
    limit: int | None = Field(default=None, ge=1)
    """Only so many records of every file."""
    sequence_length: int = Field(default=2048, ge=1)
    """For the steps of an epoch: tokens of a row."""
    global_batch_size: int = Field(default=32, ge=1)
    """For the steps of an epoch: rows of a step."""
    json_file: Path | None = None
    """Write all numbers to this file too."""
    max_bad_lines: int = Field(default=100, ge=0)
    """Unreadable lines to skip before giving up."""
    overwrite: bool = False
    """Replace `json_file`."""


@dataclass(frozen=True)
class Total:
    """Of all counted fields.

    Attributes:
        documents: records that hold any of them.
        bytes: on disk as token shards, with two tokens more for every document.
        steps: of an epoch.
    """

    documents: int
    characters: int
    tokens: int
    dtype: str
    bytes: int
    steps: int


def run(config: TokenizerCountConfig) -> Total:
    """Print a row for every field of every file, and what an epoch of all is.

    Raises:
        UserError: nothing to read, a field that no record has, or too many bad lines.
    """
    if config.json_file is not None and config.json_file.exists() and not config.overwrite:
        raise UserError(
            f"json_file={config.json_file} exists; write overwrite=true or another json_file"
        )
    tokenizer = open_tokenizer(config.tokenizer)
    counter = TokenCounter(tokenizer)
    documents = _count(config, counter)
    counts = {key: count for key, count in counter.counts.items() if isinstance(key, tuple)}
    _check_fields(config, {field for _, field in counts})
    total = _total(config, documents, list(counts.values()), len(tokenizer))
    console = Console()
    console.print(_table(counts, documents))
    console.print(_summary(config, total), highlight=False, soft_wrap=True)
    if config.json_file is not None:
        rows = [{"file": f, "field": field, **asdict(c)} for (f, field), c in counts.items()]
        text = json.dumps({"fields": rows, "total": asdict(total)}, ensure_ascii=False, indent=2)
        write_text(config.json_file, text + "\n")
    return total


def _count(config: TokenizerCountConfig, counter: TokenCounter) -> dict[str, int]:
    """Count every file; the number of documents of each."""
    files = [path for source in config.sources for path in find_files(source)]
    bad = BadLines(config.max_bad_lines)
    documents: dict[str, int] = {}
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("counting", total=sum(path.stat().st_size for path in files))
        done = 0
        for path in dict.fromkeys(files):
            name = str(path)
            documents[name] = 0
            for value in _values(path, config.limit, bad):
                texts = [
                    (k, t) for k, t in _texts(value) if not config.fields or k in config.fields
                ]
                documents[name] += bool(texts)
                for field, text in texts:
                    counter.add((name, field), text)
                progress.update(task, description=path.name)
            done += path.stat().st_size
            progress.update(task, completed=done)
        counter.flush()
    return documents


def _values(path: Path, limit: int | None, bad: BadLines) -> Iterator[Any]:
    left = math.inf if limit is None else limit
    for chunk in read_chunks(path):
        for parsed in parse_chunk(chunk):
            if left <= 0:
                return
            if isinstance(parsed, BadLine):
                bad.add(parsed)
            else:
                left -= 1
                yield parsed.value


def _texts(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """(field, text) of every text in a record; the items of a list have its name."""
    if isinstance(value, str):
        if value:
            yield field, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, f"{field}.{key}" if field else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, field)


def _check_fields(config: TokenizerCountConfig, found: set[str]) -> None:
    if missing := [field for field in config.fields if field not in found]:
        raise UserError(
            f"no record holds text in the field {missing[0]!r}; leave out fields to see which there are"
        )
    if not found:
        raise UserError("the sources hold no text at all")


def _total(
    config: TokenizerCountConfig, documents: dict[str, int], counts: list[Count], vocab_size: int
) -> Total:
    tokens, number = sum(count.tokens for count in counts), sum(documents.values())
    dtype = token_dtype(vocab_size)
    per_step = config.sequence_length * config.global_batch_size
    return Total(
        documents=number,
        characters=sum(count.characters for count in counts),
        tokens=tokens,
        dtype=dtype.name,
        bytes=(tokens + 2 * number) * dtype.itemsize,
        steps=math.ceil((tokens + 2 * number) / per_step),
    )


def _table(counts: dict[Any, Count], documents: dict[str, int]) -> Table:
    table = Table(title="tokens by file and field", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("file, field", overflow="fold")
    for column in ("texts", "characters", "tokens", "chars/tok", "longest"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, path in zip(short_names(list(documents)), documents, strict=True):
        own = {field: count for (file, field), count in counts.items() if file == path}
        table.add_row(Text(name, style="bold"), f"{documents[path]:,}", *_cells(list(own.values())))
        shown = sorted(own, key=lambda field: -own[field].tokens)[:_SHOWN_FIELDS]
        for field in shown:
            table.add_row(Text(f"  {field}"), f"{own[field].texts:,}", *_cells([own[field]]))
        if len(own) > len(shown):
            table.add_row(Text(f"  {len(own) - len(shown)} fields more"))
    return table


def _cells(counts: list[Count]) -> tuple[str, ...]:
    characters, tokens = sum(c.characters for c in counts), sum(c.tokens for c in counts)
    longest = max((c.longest for c in counts), default=0)
    ratio = characters / max(1, tokens)
    return f"{characters:,}", f"{tokens:,}", f"{ratio:.2f}", f"{longest:,}"


def _summary(config: TokenizerCountConfig, total: Total) -> str:
    rows = f"{config.global_batch_size} rows of {config.sequence_length:,}"
    return (
        f"{total.documents:,} documents, {total.characters:,} characters, {total.tokens:,} tokens; as "
        f"shards {total.bytes / 1e6:,.1f} MB ({total.dtype}); an epoch is {total.steps:,} "
        f"step{'s' if total.steps > 1 else ''} of {rows} tokens"
    )
