"""All chunks of a `prepare` run -> its build, with a progress bar, and the table of what became of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from mengya.data.ingest.records import Chunk
from mengya.data.prepare.build import Build, SourceCounts
from mengya.data.prepare.config import PrepareConfig
from mengya.data.prepare.encode import plan_encoding
from mengya.data.prepare.request import Inputs, source_form
from mengya.data.prepare.workers import encode_in_order

COMMIT_SECONDS = 5.0  # how much work an interruption may cost
# Bytes on disk: below that, starting more processes takes longer than the work.
SMALL_INPUT = 16 << 20


def encode_all(config: PrepareConfig, inputs: Inputs, build: Build, console: Console) -> None:
    """Read, encode and write chunk by chunk what `build` does not hold yet.

    Raises:
        UserError: too many bad lines, or a worker process died; `build` holds complete chunks then.
    """
    progress = Progress(
        TextColumn("prepare"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[counts]}"),
        console=console,
    )
    forms = [source_form(source) for source in inputs.sources]
    plan = plan_encoding(config.kind, str(config.tokenizer), forms, config.clean)
    workers = config.workers or (_processors() if inputs.total_bytes > SMALL_INPUT else 1)
    done = build.chunks_done
    committed = time.monotonic()

    def remaining() -> Iterator[tuple[int, Chunk]]:
        for number, (source, chunk) in enumerate(inputs.chunks()):
            if number >= done:
                yield source, chunk

    with progress, closing(encode_in_order(remaining(), workers, plan)) as results:
        bar = progress.add_task("", total=inputs.total_bytes, counts="")
        for chunk, encoded in results:
            build.add(encoded)
            progress.update(
                bar,
                completed=inputs.bytes_before[chunk.file] + chunk.position,
                counts=_counts(build.sources),
            )
            if time.monotonic() - committed > COMMIT_SECONDS:
                build.commit()
                committed = time.monotonic()
        progress.update(bar, completed=inputs.total_bytes)


def print_table(
    console: Console,
    title: str,
    sources: Sequence[str],
    counts: Sequence[SourceCounts],
    left_out: Sequence[str] = (),
) -> None:
    """What was read, kept and dropped, one row a source; names and counts in the same order.

    Args:
        left_out: names of files of an unknown form, a row each.
    """
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("source", overflow="fold")
    for name in ("read", "bad", "dropped", "kept", "held out", "tokens", "characters"):
        table.add_column(name, justify="right", no_wrap=name != "dropped", overflow="fold")
    for source, counted in zip(sources, counts, strict=True):
        total, held = counted.total, counted.kept.get("validation")
        dropped = "\n".join(f"{n:,} {reason}" for reason, n in sorted(counted.dropped.items()) if n)
        numbers = (total.samples, held.samples if held else 0, total.tokens, total.characters)
        table.add_row(
            source,
            f"{counted.read:,}",
            f"{counted.bad:,}",
            dropped or "0",
            *(f"{n:,}" for n in numbers),
        )
    for name in left_out:
        table.add_row(name, "-", "-", "file left out: unknown form")
    console.print(table)


def _counts(sources: Sequence[SourceCounts]) -> str:
    total = [source.total for source in sources]
    samples, tokens = sum(t.samples for t in total), sum(t.tokens for t in total)
    return f"{samples:,} samples, {tokens:,} tokens"


def _processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
