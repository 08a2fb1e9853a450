"""The rows of a run: its shards, checked against the tokenizer and packed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from mengya.data.prepare.encoding.plan import Kind
from mengya.data.rows.datasets import PackedRows
from mengya.data.rows.mixing.config import Source
from mengya.data.shards import TokenShards
from mengya.tokenizer.chat_template import chat_template_hash
from mengya.tokenizer.load import document_token_id, load_tokenizer, tokenizer_hash
from mengya.training.run_config import RunConfig


def open_rows(
    config: RunConfig,
    sources: Sequence[Source],
    kinds: Sequence[Kind],
    tokenizer_folder: Path,
    console: Console,
) -> list[PackedRows]:
    """The rows of each source; at least one must be of the first of `kinds`."""
    fingerprint = tokenizer_hash(tokenizer_folder)
    opened = [TokenShards(source.path) for source in sources]
    tokenizer = load_tokenizer(tokenizer_folder)
    is_text = [shards.kind == "text" for shards in opened]
    document_token = document_token_id(tokenizer) if any(is_text) else None
    template = None if all(is_text) else chat_template_hash(tokenizer)
    if config.data.verify:
        _verify(opened, console)
    if all(shards.kind != kinds[0] for shards in opened):
        kinds = kinds[:1]
    parts: list[PackedRows] = []
    for source, shards in zip(sources, opened, strict=True):
        shards.require(
            *kinds,
            tokenizer_sha256=fingerprint,
            chat_template_sha256=template,
            document_token_id=document_token,
        )
        rows = PackedRows(shards, config.data.sequence_length, config.seed, source.order)
        if left_out := rows.fitting.describe(shards.kind, config.data.sequence_length):
            console.print(
                f"{source.path}: {left_out}; {rows.fitting.remedy}", highlight=False, soft_wrap=True
            )
        parts.append(rows)
    return parts


def _verify(opened: Sequence[TokenShards], console: Console) -> None:
    """Check the contents of shards; every process does, as those of another node are other copies."""
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        for shards in opened:
            task = bar.add_task(f"verify {shards.directory}", total=shards.file_bytes)
            shards.verify(lambda read, task=task: bar.advance(task, read))
            console.print(
                f"{shards.directory}: {shards.file_bytes:,} bytes are what was written",
                highlight=False,
                soft_wrap=True,
            )
