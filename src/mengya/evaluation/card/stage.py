"""All that is known of one stage on disk: figures with their origin, cost, curves, data. Opens no weights.

Takes a Place (life.py) and what the caller knows of its data; gives a Stage for the card (content.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mengya.data.rows.mixing.config import Source, source_names
from mengya.data.training_record import read_training_record
from mengya.errors import UserError
from mengya.evaluation.card.compare import Figure, with_interval
from mengya.evaluation.card.cost import Cost, cost_of
from mengya.evaluation.card.curves import EVENTS, Curves, read_curves
from mengya.evaluation.card.life import Place
from mengya.evaluation.record.file import items_path
from mengya.measured.evaluation import FILE, is_current, read_evaluation, subject_sha256
from mengya.measured.figures import figures_by_part
from mengya.runtime.jsonl import read_jsonl, read_metrics, read_steps
from mengya.runtime.yaml_values import read_object


@dataclass(frozen=True)
class Stage:
    """
    Attributes:
        figures: by their name; those that do not apply to the model are in it with 0 items.
        is_stale: there is an evaluation.json, of other weights.
        replay: share of plain text among the tokens trained on, of SFT and after; None is not known.
        data: what it was trained on: name, license, kind, documents, tokens, files of each source.
        checked: of each shard folder, in all stages so far, what of exams was found; None: nobody looked.
        starts: the command, commit, machine and versions of each start of the run.
        config: config.yaml of the run, or the settings of the quantization.
        answers: items of `loops`. samples: those saved during training, the last of them.
    """

    place: Place
    sha256: str
    figures: dict[str, Figure]
    is_stale: bool
    cost: Cost
    curves: Curves | None
    replay: float | None
    data: list[dict[str, Any]] = field(default_factory=list)
    checked: list[dict[str, Any]] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)
    config: str = ""
    answers: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)


def read_stage(place: Place, data: Sequence[dict[str, Any]]) -> Stage:
    """Args:
        data: of the stage itself, as the manifests of its shards say.

    Raises:
        UserError: a file that mengya wrote is damaged.
    """
    file = place.folder / FILE
    evaluation, sha256 = read_evaluation(file), subject_sha256(place.folder)
    is_stale = bool(evaluation) and not is_current(evaluation, sha256)
    try:
        figures = {} if is_stale else dict(_figures(file, evaluation))
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    loops = items_path(file, "yardsticks/loops")
    return Stage(
        place=place,
        sha256=sha256,
        figures=figures,
        is_stale=is_stale,
        cost=cost_of(place.folder, place.run),
        curves=read_curves(place.run) if place.run else None,
        replay=_replay(place),
        data=list(data),
        checked=list(_checked(place.folder)),
        starts=[e for e in _events(place) if e.get("event") in ("start", "resume")],
        config=_config(place),
        answers=[] if is_stale else list(read_jsonl(loops)),
        samples=_samples(place.run) if place.run else [],
    )


def _figures(file: Path, evaluation: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    by = evaluation.get("measured_by")
    by = by if isinstance(by, dict) else {}
    for part, measurements in figures_by_part(evaluation).items():
        records = list(read_jsonl(items_path(file, part)))
        origin = by.get(part) or evaluation.get("provenance") or {}
        for measurement in measurements:
            figure = with_interval(Figure(measurement, part, origin, records))
            yield measurement.name, figure


def _replay(place: Place) -> float | None:
    """By the tokens of each source in metrics.jsonl, of those whose shards are text."""
    if place.run is None or place.kind == "pretrain":
        return None
    tokens: dict[str, float] = {}
    for line in read_metrics(place.run / "metrics.jsonl"):
        tokens |= {k: v for k, v in line.items() if k.startswith("data/") and k.endswith("/tokens")}
    section = read_object(place.run / "config.yaml").get("data")
    try:
        sources = [Source.model_validate(s) for s in section["train"]] if section else []
    except (ValidationError, KeyError, TypeError):  # of another version: then nothing is known
        return None
    seen = [
        (
            tokens.get(f"data/{name}/tokens", 0.0),
            read_object(source.path / "manifest.json").get("kind"),
        )
        for name, source in zip(source_names(sources), sources, strict=True)
    ]
    total = sum(count for count, _ in seen)
    if all(kind == "text" for _, kind in seen):  # pretraining by another name
        return None
    return sum(count for count, kind in seen if kind == "text") / total if total else None


def _checked(folder: Path) -> Iterator[dict[str, Any]]:
    for entry in read_training_record(folder) or ():
        exams = (entry.contamination or {}).get("exams")
        found = None
        if exams is not None:
            found = len({key for exam in exams for key in exam.get("keys", ())})
        yield {"run": entry.run, "shards": entry.shards, "found": found}


def _config(place: Place) -> str:
    if place.run is not None:
        return (place.run / "config.yaml").read_text(encoding="utf-8", errors="replace")
    record = read_object(place.folder / "quantization.json")
    kept = {
        name: record[name] for name in ("method", "layout", "mean_bits", "config") if name in record
    }
    return json.dumps(kept, ensure_ascii=False, indent=1) if kept else ""


def _events(place: Place) -> list[dict[str, Any]]:
    return list(read_jsonl(place.run / EVENTS)) if place.run else []


def _samples(run: Path) -> list[dict[str, Any]]:
    samples = list(read_steps(run / "samples.jsonl"))
    last = max((sample["step"] for sample in samples), default=None)
    return [sample for sample in samples if sample["step"] == last]
