"""evaluation.json of a checkpoint as rows for the model card: the headline figures of a report card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mengya.errors import UserError
from mengya.measured.evaluation import FILE, is_current, read_evaluation, subject_sha256
from mengya.measured.figures import measurements_of
from mengya.measured.headline import is_headline
from mengya.measured.measurement import Measurement
from mengya.measured.shown import shown, shown_interval


@dataclass(frozen=True)
class ResultRow:
    """One figure.

    Attributes:
        measure: name of the measurement.
        value: with its unit. interval: 95 %; "" without.
        note: what a reader must know of it, "" without.
    """

    measure: str
    value: str
    interval: str
    items: int
    note: str


def read_results(checkpoint: Path) -> list[ResultRow]:
    """Rows of what was measured; [] where nothing was on these very weights, or the file is damaged."""
    try:
        evaluation = read_evaluation(checkpoint / FILE)
        if not evaluation or not is_current(evaluation, subject_sha256(checkpoint)):
            return []
        figures = measurements_of(evaluation)
    except UserError:
        return []
    return [_row(figure) for figure in figures if figure.items and is_headline(figure.name)]


def _row(figure: Measurement) -> ResultRow:
    unit = "" if figure.unit == "share" else f" {figure.unit}"
    interval = shown_interval(figure.interval, figure.unit)
    value = f"{shown(figure.value, figure.unit)}{unit}"
    return ResultRow(figure.name, value, interval, figure.items, figure.note)
