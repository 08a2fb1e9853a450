"""card.json: everything that the page and the Markdown say, as values; its schema is `format` 1.

    {"format": 1, "mengya", "command", "stages": [...], "rows": [{"name", "title", "part", "group",
     "headline", "unit", "better", "chance", "cells": [null or {"value", "interval", "items", "change",
     "origin", ...}]}],
     "origins": [{"command", "seed", "hardware", ...}], "findings": [...], "samples": [...], "comparisons"}

Cells are in the order of the stages; `before` of a stage and `origin` of a cell are indices.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import mengya
from mengya.evaluation.answers.side_by_side import side_by_side
from mengya.evaluation.card.compare import SIGNIFICANT, Change, Figure, compare
from mengya.evaluation.card.findings import find
from mengya.evaluation.card.render.words import figure_name
from mengya.evaluation.card.stage import Stage
from mengya.measured.headline import is_headline

FORMAT = 1
# Groups of figures in the order of the card; others follow by name.
_GROUPS = (
    "text", "reference_text", "bits_per_char", "pairs", "cloze", "knowledge", "exam", "instructions",
    "identity", "loops", "stop_in_time", "answer_length", "diversity", "preference", "judge", "passkey",
)  # fmt: skip


def card_values(stages: Sequence[Stage], command: str) -> dict[str, Any]:
    """The values of card.json.

    Args:
        command: that wrote the card, as typed.
    """
    names = _ordered(
        dict.fromkeys(
            name
            for stage in stages
            for name, figure in stage.figures.items()
            if figure.measurement.items
        )
    )
    headline = [name for name in names if is_headline(name)]
    changes = [_changes(stage, stages) for stage in stages]
    origins = _Origins()
    rows = [_row(name, stages, changes, origins, name in headline) for name in names]
    return {
        "format": FORMAT,
        "mengya": mengya.__version__,
        "command": command,
        "stages": [_stage(number, stage) for number, stage in enumerate(stages)],
        "findings": [finding.to_json() for finding in find(stages, changes, headline)],
        "rows": rows,
        "origins": origins.values,
        "samples": _samples(stages),
        "comparisons": {
            "count": sum(
                change is not None and change.p is not None
                for own in changes
                for change in own.values()
            ),
            "significant": SIGNIFICANT,
        },
    }


class _Origins:
    """Every origin once; cells name it by its index."""

    def __init__(self) -> None:
        self.values: list[dict[str, Any]] = []
        self._index: dict[str, int] = {}

    def index(self, origin: Mapping[str, Any]) -> int | None:
        if not origin:
            return None
        key = json.dumps(origin, sort_keys=True, ensure_ascii=False)
        if key not in self._index:
            self._index[key] = len(self.values)
            self.values.append(dict(origin))
        return self._index[key]


def _changes(stage: Stage, stages: Sequence[Stage]) -> dict[str, Change | None]:
    if stage.place.before is None:
        return {}
    before = stages[stage.place.before].figures
    return {
        name: compare(before[name], figure)
        for name, figure in stage.figures.items()
        if name in before and before[name].measurement.items and figure.measurement.items
    }


def _row(
    name: str,
    stages: Sequence[Stage],
    changes: Sequence[Mapping[str, Change | None]],
    origins: _Origins,
    is_headline: bool,
) -> dict[str, Any]:
    # A yardstick that does not fit a model has one figure, of its own name: it stands for all of its parts.
    group = name.split("/")[0]
    figures = [stage.figures.get(name) or stage.figures.get(group) for stage in stages]
    figures = [
        figure
        if figure and (figure.measurement.name == name or not figure.measurement.items)
        else None
        for figure in figures
    ]
    first = next(figure for figure in figures if figure is not None and figure.measurement.items)
    return {
        "name": name,
        "title": figure_name(name),
        "part": first.part,
        "group": group,
        "headline": is_headline,
        "unit": first.measurement.unit,
        "better": first.measurement.better,
        "chance": first.measurement.chance,
        "cells": [
            None if figure is None else _cell(figure, own, name, origins)
            for figure, own in zip(figures, changes, strict=True)
        ],
    }


def _cell(
    figure: Figure, changes: Mapping[str, Change | None], name: str, origins: _Origins
) -> dict[str, Any]:
    measurement = figure.measurement
    change = changes.get(name)
    return {
        "value": measurement.value if measurement.items else None,
        "interval": list(measurement.interval) if measurement.interval else None,
        "items": measurement.items,
        "above_chance": measurement.above_chance,
        "note": measurement.note,
        "comparable": name not in changes or change is not None,
        "change": asdict(change) if change else None,
        "origin": origins.index(figure.origin),
    }


def _stage(number: int, stage: Stage) -> dict[str, Any]:
    place = stage.place
    return {
        "id": number,
        "name": place.name,
        "kind": place.kind,
        "folder": str(place.folder),
        "run": str(place.run) if place.run else None,
        "before": place.before,
        "before_known": place.before_known,
        "checkpoint_sha256": stage.sha256,
        "is_stale": stage.is_stale,
        "cost": asdict(stage.cost),
        "replay": stage.replay,
        "data": stage.data,
        "checked": stage.checked,
        "starts": stage.starts,
        "config": stage.config,
        "training_samples": stage.samples,
        "curves": stage.curves.to_json() if stage.curves else None,
    }


def _samples(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """The fixed questions and openings with what each stage answered; None where it was not asked."""
    by_stage = {str(number): stage.answers for number, stage in enumerate(stages)}
    return [
        {"prompt": prompt, "answers": [found.get(str(i)) for i in range(len(stages))]}
        for prompt, found in side_by_side(by_stage).items()
    ]


def _ordered(names: Mapping[str, None]) -> list[str]:
    """By group; in a group as they were measured."""
    places = {group: place for place, group in enumerate(_GROUPS)}

    def key(name: str) -> tuple[int, str]:
        group = name.split("/")[0]
        return places.get(group, len(places)), group

    return sorted(names, key=key)
