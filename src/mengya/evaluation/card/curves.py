"""The curves of a run and what happened on the way: metrics.jsonl and events.jsonl, for the card's charts.

Takes a run folder; gives series of [step, value], and marks at steps: epochs, skipped steps, spikes, resumes,
returns to a checkpoint. Runs that wrote no events.jsonl have the marks that metrics.jsonl tells.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mengya.runtime.jsonl import read_jsonl, read_metrics

MarkKind = Literal["epoch", "skipped", "spike", "resume", "rewind"]
EVENTS = "events.jsonl"
_POINTS = 800  # of a curve, at most: more than a screen shows
_DRAWN = (
    "loss", "validation/loss", "validation/bits_per_char", "accuracy", "validation/accuracy", "margin",
    "validation/margin", "aux_loss", "grad_norm", "lr", "tokens_per_second", "mfu", "power_watts",
)  # fmt: skip
_SHARE = re.compile(r"data/.+/share")
_EPOCHS = re.compile(r"data/(.+)/epochs")
_EVALUATED = "yardstick/"  # measured during training
_SPIKE, _WINDOW = 6.0, 20  # spreads above the median of so many lines before


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step; `text` says more, in the words of the run."""

    step: int
    kind: MarkKind
    text: str


@dataclass(frozen=True)
class Curves:
    """
    Attributes:
        series: (step, value) by name; values that are not finite are left out.
        tokens: (step, tokens seen so far), to draw by tokens.
    """

    series: dict[str, list[tuple[int, float]]]
    tokens: list[tuple[int, float]]
    marks: list[Mark]

    def to_json(self) -> dict[str, Any]:
        return {
            "series": {name: _thinned(points) for name, points in self.series.items()},
            "tokens": _thinned(self.tokens),
            "marks": [
                {"step": mark.step, "kind": mark.kind, "text": mark.text} for mark in self.marks
            ],
        }


def read_curves(run: Path) -> Curves:
    """Raises:
    UserError: a line of metrics.jsonl is not what a run writes.
    """
    lines = list(read_metrics(run / "metrics.jsonl"))
    names = [name for name in _DRAWN if any(name in line for line in lines)]
    found = {name for line in lines for name in line}
    names += sorted(name for name in found if name.startswith(_EVALUATED))
    shares = sorted(name for name in found if _SHARE.fullmatch(name))
    names += shares if len(shares) > 1 else []
    series = {name: _points(lines, name) for name in names}
    marks = [*_epochs(lines), *_events(run, lines)]
    return Curves(
        {name: points for name, points in series.items() if points},
        _points(lines, "tokens"),
        sorted(marks, key=lambda mark: (mark.step, mark.kind)),
    )


def _points(lines: Sequence[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    values = ((line["step"], line[name]) for line in lines if name in line)
    return [
        (step, float(value))
        for step, value in values
        if isinstance(value, int | float) and math.isfinite(value)
    ]


def _epochs(lines: Sequence[dict[str, Any]]) -> Iterator[Mark]:
    """Where the data of a source began again."""
    done: dict[str, int] = {}
    for line in lines:
        for name, value in line.items():
            source = _EPOCHS.fullmatch(name)
            if source is None or not isinstance(value, int | float):
                continue
            epochs = math.floor(value + 1e-6)
            if epochs > done.get(name, 0):
                yield Mark(line["step"], "epoch", f"{source[1]}: {epochs}")
            done[name] = max(epochs, done.get(name, 0))


def _events(run: Path, lines: Sequence[dict[str, Any]]) -> Iterator[Mark]:
    if not (run / EVENTS).is_file():
        yield from _skipped(lines)
        yield from _spikes(_points(lines, "loss"))
        return
    seen: set[int] = set()
    for event in read_jsonl(run / EVENTS):
        step, kind = event.get("step"), event.get("event")
        if isinstance(step, int) and kind in ("skipped", "spike", "resume", "rewind"):
            seen.add(step)
            yield Mark(step, kind, str(event.get("text", "")))
    yield from (mark for mark in _spikes(_points(lines, "loss")) if mark.step not in seen)


def _skipped(lines: Sequence[dict[str, Any]]) -> Iterator[Mark]:
    before = 0
    for line in lines:
        count = line.get("skipped", before)
        if isinstance(count, int) and count > before:
            yield Mark(line["step"], "skipped", f"+{count - before}")
        before = count if isinstance(count, int) else before


def _spikes(points: Sequence[tuple[int, float]]) -> Iterator[Mark]:
    """Lines of the log whose loss is far above those before, by the rule of training/health/watchdog.py."""
    for number in range(_WINDOW, len(points)):
        losses = [value for _, value in points[number - _WINDOW : number]]
        median = statistics.median(losses)
        spread = 1.4826 * statistics.median(abs(loss - median) for loss in losses)
        step, loss = points[number]
        if loss > median + max(_SPIKE * spread, 0.5 * max(median, 1.0)):
            yield Mark(step, "spike", f"{loss:.3g} > {median:.3g}")


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Of each bin of steps the lowest and the highest value, so that no spike is lost."""
    if len(points) <= _POINTS:
        return [(step, _short(value)) for step, value in points]
    kept: dict[int, float] = {}
    bins = _POINTS // 2
    for number in range(bins):
        some = points[number * len(points) // bins : (number + 1) * len(points) // bins]
        for step, value in (min(some, key=lambda p: p[1]), max(some, key=lambda p: p[1])):
            kept[step] = _short(value)
    kept[points[-1][0]] = _short(points[-1][1])
    return sorted(kept.items())


def _short(value: float) -> float:
    return float(f"{value:.5g}")
