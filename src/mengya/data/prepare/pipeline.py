"""All chunks of a `prepare` run -> its build, with a progress bar, and the table of what became of them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from mengya.data.ingest.reading.records import Chunk
from mengya.data.prepare.build import Build
from mengya.data.prepare.cluster import encode_on_cluster
from mengya.data.prepare.config import PrepareConfig, PrepareFilters
from mengya.data.prepare.counts import SourceCounts
from mengya.data.prepare.encoded_chunk import EncodedChunk
from mengya.data.prepare.encoding_plan import BatchFilter, EncodingPlan, plan_encoding
from mengya.data.prepare.exam_check import ExamItems
from mengya.data.prepare.perplexity import PerplexityBounds, Scorer
from mengya.data.prepare.repeated_text import TABLE, RepeatedPassages, RepeatedTextPlan
from mengya.data.prepare.request import Inputs, source_form
from mengya.data.prepare.signing import signing_for
from mengya.data.prepare.workers import encode_in_order
from mengya.data.rows.fitting import fit_rows
from mengya.data.shards import MANIFEST, TokenShards
from mengya.runtime.device import usable_cores
from mengya.text.visible import visible

MAX_REASONS = 3  # in a cell of the table
COMMIT_SECONDS = 5.0  # how much work an interruption may cost
# Bytes on disk: below that, starting more processes takes longer than the work.
SMALL_INPUT = 16 << 20
ROWS = (512, 1024, 2048, 4096)  # lengths to count long chats for


def encode_all(
    config: PrepareConfig,
    inputs: Inputs,
    build: Build,
    console: Console,
    make_scorer: Callable[[], Scorer] | None = None,
    exam_items: ExamItems | None = None,
) -> None:
    """Read, encode and write chunk by chunk what `build` does not hold yet.

    Args:
        make_scorer: called once in every process, gives what the filter by perplexity goes by.
        exam_items: what is looked for of exams.

    Raises:
        UserError: too many bad lines, or a worker process died; `build` holds complete chunks then.
    """
    plan = _plan(config, inputs, make_scorer, exam_items)
    workers = config.workers or (usable_cores() if inputs.total_bytes > SMALL_INPUT else 1)
    if config.repeated_text is not None:
        table = _repeated_text(config, inputs, plan, workers, build.directory, console)
        sent = np.load(table) if config.cluster else table
        plan = replace(plan, repeated_text=RepeatedTextPlan(config.repeated_text, sent))
    done = build.chunks_done
    committed = time.monotonic()

    def remaining() -> Iterator[tuple[int, Chunk]]:
        for number, (source, chunk) in enumerate(inputs.chunks()):
            if number >= done:
                yield source, chunk

    progress = _progress("prepare", console)
    with progress, closing(_encoded(config, remaining(), workers, plan)) as results:
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


def _encoded(
    config: PrepareConfig, chunks: Iterator[tuple[int, Chunk]], workers: int, plan: EncodingPlan
) -> Generator[tuple[Chunk, EncodedChunk], None, None]:
    """(chunk, what became of it), in order, from the processes of this machine or of a cluster."""
    if config.cluster:
        return encode_on_cluster(chunks, config.cluster, plan)
    return encode_in_order(chunks, workers, plan)


def _repeated_text(
    config: PrepareConfig,
    inputs: Inputs,
    plan: EncodingPlan,
    workers: int,
    directory: Path,
    console: Console,
) -> Path:
    """Read everything once to find the passages that repeat, unless an interrupted run did; their table."""
    if (directory / TABLE).is_file():
        return directory / TABLE
    assert config.repeated_text is not None
    plan = replace(plan, signing=None, repeated_text=RepeatedTextPlan(config.repeated_text))
    repeated = RepeatedPassages(directory)
    progress = _progress("find repeated text", console)
    with progress, closing(_encoded(config, inputs.chunks(), workers, plan)) as results:
        bar = progress.add_task("", total=inputs.total_bytes, counts="")
        for chunk, encoded in results:
            repeated.add(encoded.passages)
            progress.update(bar, completed=inputs.bytes_before[chunk.file] + chunk.position)
        progress.update(bar, completed=inputs.total_bytes)
    return repeated.finish()


def _progress(title: str, console: Console) -> Progress:
    return Progress(
        TextColumn(title),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[counts]}"),
        console=console,
    )


def _plan(
    config: PrepareConfig,
    inputs: Inputs,
    make_scorer: Callable[[], Scorer] | None,
    exam_items: ExamItems | None,
) -> EncodingPlan:
    batch_filters: list[Callable[[], BatchFilter]] = []
    if (bounds := config.filters.perplexity) is not None and make_scorer is not None:
        limits = (bounds.min_bits_per_char, bounds.max_bits_per_char)
        batch_filters.append(PerplexityBounds(make_scorer, *limits))
    return plan_encoding(
        config.kind,
        str(config.tokenizer),
        [source_form(source) for source in inputs.sources],
        config.clean,
        train_on=config.train_on,
        exact=config.dedup == "exact",
        filters=config.filters if config.filters != PrepareFilters() else None,
        own_filters=tuple(inputs.own_filters),
        fill=tuple(config.fill.items()),
        drop_placeholders=config.placeholders == "drop",
        batch_filters=tuple(batch_filters),
        signing=signing_for(config.near_duplicates, config.kind, config.validation_fraction),
        exam_items=exam_items,
    )


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
    sources, left_out = [visible(name) for name in sources], [visible(name) for name in left_out]
    table = Table(title=escape(visible(title)), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("source", overflow="fold")
    for name in ("read", "bad", "dropped", "kept", "held out", "tokens", "characters"):
        table.add_column(name, justify="right", no_wrap=name != "dropped", overflow="fold")
    long: list[str] = []
    for source, counted in zip(sources, counts, strict=True):
        total, held = counted.total, counted.kept.get("validation")
        reasons = [f"{n:,} {reason}" for reason, n in sorted(counted.dropped.items()) if n]
        dropped = "\n".join(reasons)
        if len(reasons) > MAX_REASONS:
            dropped = f"{sum(counted.dropped.values()):,}"
            long.append(visible(f"{source}: dropped {', '.join(reasons)}"))
        numbers = (total.samples, held.samples if held else 0, total.tokens, total.characters)
        table.add_row(
            escape(source),
            f"{counted.read:,}",
            f"{counted.bad:,}",
            escape(visible(dropped)) or "0",
            *(f"{n:,}" for n in numbers),
        )
    for name in left_out:
        table.add_row(escape(name), "-", "-", "file left out: unknown form")
    console.print(table)
    for line in long:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for source, counted in zip(sources, counts, strict=True):
        if counted.edits:
            edits = ", ".join(f"{edit} ({n:,})" for edit, n in sorted(counted.edits.items()))
            line = f"{source}: edits (samples that they changed): {edits}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    for name, counted in zip(sources, counts, strict=True):
        if not (fields := counted.unused):
            continue
        listed = ", ".join(f"{field} ({n:,})" for field, n in fields.most_common())
        line = visible(f"{name}: fields that were not used (records that have them): {listed}")
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for name, counted in zip(sources, counts, strict=True):
        if counted.cut_turns:
            line = f"{name}: {counted.cut_turns:,} turns after the last answer of a conversation were cut"
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def warn_placeholders(
    console: Console, sources: Sequence[str], counts: Sequence[SourceCounts], dropped: bool
) -> None:
    """Say which placeholders nobody filled in, and what to type; nothing where there are none."""
    found: Counter[str] = Counter()
    for name, counted in zip(sources, counts, strict=True):
        if not counted.placeholders:
            continue
        found += counted.placeholders
        listed = ", ".join(f"{n:,} hold {what}" for what, n in counted.placeholders.most_common(5))
        more = len(counted.placeholders) - 5
        lines = [f"{name}: of the learned answers {listed}{f', {more} others' if more > 0 else ''}"]
        most = counted.placeholders.most_common(1)[0][0]
        for one in counted.placeholder_examples.by_name[most][:2]:
            lines.append(f"  {one.file}:{one.line}: {' '.join(one.text.split())}")
        for line in map(visible, lines):
            console.print(line, markup=False, highlight=False, soft_wrap=True, emoji=False)
    if found and not dropped:
        fill = json.dumps({what: "..." for what, _ in found.most_common(4)}, ensure_ascii=False)
        advice = (
            "Nobody filled these placeholders in: the model would learn to say them. Fill them with "
            f"fill='{fill}', or drop these samples with placeholders=drop"
        )
        console.print(advice, style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_lengths(console: Console, directory: Path) -> None:
    """How many chats below `directory` do not fit the usual rows: training will not use all of them."""
    shards = [TokenShards(manifest.parent) for manifest in sorted(directory.rglob(MANIFEST))]
    shortest = [fit_rows(each, ROWS[0]) for each in shards]
    longest = max(fitting.needed for fitting in shortest)
    counts = []
    for size in (size for size in ROWS if size < longest):
        fitted = shortest if size == ROWS[0] else [fit_rows(each, size) for each in shards]
        shortened, left_out = sum(f.shortened for f in fitted), sum(f.left_out for f in fitted)
        counts.append(f"{size:,}: {shortened:,} shortened, {left_out:,} left out")
    console.print(
        "\n  ".join([f"the longest takes data.sequence_length={longest}; rows of", *counts])
        if counts
        else f"the longest takes data.sequence_length={longest}",
        highlight=False,
        soft_wrap=True,
    )


def _counts(sources: Sequence[SourceCounts]) -> str:
    total = [source.total for source in sources]
    samples, tokens = sum(t.samples for t in total), sum(t.tokens for t in total)
    return f"{samples:,} samples, {tokens:,} tokens"
