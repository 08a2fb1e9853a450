"""`mengya inspect SHARDS tokenizer=FOLDER`: what is in token shards, and what of it is learned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator
from rich.console import Console
from rich.progress import Progress

from mengya.config import Config
from mengya.data.inspection import Inspection, inspect_shards
from mengya.data.prepare.encoding.plan import Kind
from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.runtime.output_folder import MARKER
from mengya.stages.inspection.page import write_page
from mengya.stages.inspection.samples import Sample, SampleReader, sides_of
from mengya.stages.inspection.terminal import print_numbers, print_sample

_RUN_KINDS: dict[str, tuple[Kind, ...]] = {
    "pretrain": ("text",),
    "sft": ("conversation", "text"),
    "dpo": ("preference",),
}


class InspectConfig(Config):
    shards: Path | None = None
    """A folder of token shards."""
    tokenizer: Path | None = None
    """The tokenizer folder that the shards were made with."""
    samples: int = Field(default=3, ge=0)
    """How many samples to show, drawn by `seed`."""
    seed: int = 0
    """Other samples."""
    sample: int | None = Field(default=None, ge=0)
    """Show this one: documents, conversations or pairs count from 0."""
    run: Path | None = None
    """The folder of a training run, to show what its `step` was trained on, instead of `shards`."""
    step: int | None = Field(default=None, ge=1)
    """A step of `run`, as its metrics count them."""
    max_tokens: int = Field(default=300, ge=1)
    """Show no more of a sample."""
    ids: bool = False
    """Show every token with its id and its label (-100: no loss is taken on it)."""
    html: Path | None = None
    """Write a page with the same to this file."""
    overwrite: bool = False
    """Replace `html`."""

    @model_validator(mode="after")
    def _what(self) -> InspectConfig:
        if (self.run is None) != (self.step is None):
            raise ValueError("a step is one of a run: write run=RUN_DIR step=N, both or neither")
        if (self.shards is None) == (self.run is None):
            raise ValueError("name one of both: a folder of shards, or run=RUN_DIR step=N")
        if self.shards is not None and self.tokenizer is None:
            raise ValueError("shards hold ids alone; write tokenizer=FOLDER to see what they say")
        if self.run is not None and (
            given := {"samples", "seed", "sample"} & self.model_fields_set
        ):
            raise ValueError(
                f"a step shows every document that it learned from; leave {', '.join(sorted(given))} out"
            )
        if self.run is not None and self.tokenizer is not None:
            raise ValueError("a run knows its tokenizer; leave tokenizer out")
        return self


def run(config: InspectConfig) -> None:
    """Print numbers and samples.

    Raises:
        UserError: no shards, another tokenizer, or a sample or step that is not there.
    """
    if config.html is not None and config.html.exists() and not config.overwrite:
        raise UserError(f"html={config.html} exists; write overwrite=true or another html=FILE")
    console, note = Console(), Console(stderr=True)
    if config.run is not None and config.step is not None:
        numbers, samples = None, list(_of_step(config, config.run, config.step, note))
    else:
        numbers, samples = _of_shards(config, note)
    if numbers is not None:
        print_numbers(console, numbers)
    for sample in samples:
        print_sample(console, sample, ids=config.ids)
    if config.html is not None:
        title = str(config.shards or f"{config.run}, step {config.step}")
        write_page(config.html, title, numbers, samples)
        note.print(f"written to {config.html}", markup=False, highlight=False, soft_wrap=True)


def _of_shards(config: InspectConfig, note: Console) -> tuple[Inspection, list[Sample]]:
    assert config.shards is not None and config.tokenizer is not None
    shards, reader = TokenShards(config.shards), SampleReader(config.tokenizer, config.max_tokens)
    reader.check(shards)
    count = len(shards) // sides_of(shards)
    if config.sample is not None and config.sample >= count:
        raise UserError(
            f"sample={config.sample} is not there: {config.shards} has {count:,}; "
            f"write sample={max(0, count - 1)} or less"
        )
    chosen = [config.sample] if config.sample is not None else _chosen(config, count)
    samples = [one for number in chosen for one in reader.samples(shards, number)]
    with Progress(console=note, disable=not note.is_terminal, transient=True) as progress:
        task = progress.add_task("reading", total=count)
        return inspect_shards(shards, lambda read: progress.advance(task, read)), samples


def _chosen(config: InspectConfig, count: int) -> list[int]:
    draw = np.random.default_rng(config.seed)
    return sorted(draw.choice(count, min(config.samples, count), replace=False).tolist())


def _of_step(config: InspectConfig, run: Path, step: int, note: Console) -> Iterator[Sample]:
    """Every document that the step was trained on."""
    from mengya.models.hf.open_checkpoint import find_checkpoint
    from mengya.stages.plan import pick_verb, read_run
    from mengya.stages.run.assemble import documents_of_step

    verb = pick_verb(_verb_of(run))
    verb, settings = read_run(run / "config.yaml", (), verb)
    start = getattr(settings, "init_from", None)
    named = getattr(settings, "tokenizer", None)
    folder = named if start is None else find_checkpoint(start)
    assert folder is not None
    reader = SampleReader(folder, config.max_tokens)
    for document in documents_of_step(settings, folder, _RUN_KINDS[verb], step - 1, note):
        shards = TokenShards(document["shards"])
        yield reader.document(shards, document["document"])


def _verb_of(run: Path) -> str | None:
    """The verb that wrote a run folder; None where a version without markers did."""
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is not the folder of a run: it has no config.yaml")
    try:
        return json.loads((run / MARKER).read_text(encoding="utf-8"))["verb"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
