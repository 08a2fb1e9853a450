"""All chunks of a `prepare` run -> its build, with a progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from mengya.data.ingest.reading.records import Chunk
from mengya.data.prepare.build import Build
from mengya.data.prepare.config import PrepareConfig, PrepareFilters
from mengya.data.prepare.duplicates.repeated_text import TABLE, RepeatedPassages, RepeatedTextPlan
from mengya.data.prepare.duplicates.signing import signing_for
from mengya.data.prepare.encoding.perplexity import PerplexityBounds, Scorer
from mengya.data.prepare.encoding.plan import BatchFilter, EncodingPlan, plan_encoding
from mengya.data.prepare.exams.check import ExamItems
from mengya.data.prepare.executors.cluster import encode_on_cluster
from mengya.data.prepare.executors.workers import encode_in_order
from mengya.data.prepare.outcome.counts import SourceCounts
from mengya.data.prepare.outcome.encoded_chunk import EncodedChunk
from mengya.data.prepare.request.inputs import Inputs, source_form
from mengya.runtime.device import usable_cores

COMMIT_SECONDS = 5.0  # how much work an interruption may cost
# Bytes on disk: below that, starting more processes takes longer than the work.
SMALL_INPUT = 16 << 20


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


def _counts(sources: Sequence[SourceCounts]) -> str:
    total = [source.total for source in sources]
    samples, tokens = sum(t.samples for t in total), sum(t.tokens for t in total)
    return f"{samples:,} samples, {tokens:,} tokens"
