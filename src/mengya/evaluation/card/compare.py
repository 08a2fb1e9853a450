"""What changed between two stages: a figure of each, their items where they were kept, and a verdict.

The same items of both models are compared in pairs; without items two intervals are compared, and without
intervals only the difference is given. Figures of different settings are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from mengya.measured.intervals import bootstrap_ratio, paired_difference
from mengya.measured.measurement import Measurement

Verdict = Literal["better", "worse", "same", "unclear", "changed"]
SIGNIFICANT = 0.05
_PLACES = ("device", "dtype", "mengya")  # of the settings: not what was measured, but where
_LENGTHS = {"bits/char": "characters", "bits/byte": "bytes"}


@dataclass(frozen=True)
class Figure:
    """A measurement of one stage.

    Attributes:
        part: of the evaluation that it belongs to, as in `measured_by`.
        origin: command, seed, machine and versions of it; {} where an old file does not say.
        records: the items of the part, [] without.
    """

    measurement: Measurement
    part: str
    origin: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]

    @property
    def settings(self) -> dict[str, Any]:
        settings = self.origin.get("settings") or {}
        return {name: value for name, value in settings.items() if name not in _PLACES}


@dataclass(frozen=True)
class Change:
    """`after` - `before` of a figure.

    Attributes:
        interval: 95 %, of the difference; p: two-sided, of no difference; None where they are not known.
        paired: whether the same items were compared.
        items: how many of them.
        verdict: same: within noise; unclear: no interval to judge by; changed: neither way is better.
    """

    mean: float
    interval: tuple[float, float] | None
    p: float | None
    paired: bool
    items: int
    verdict: Verdict


def compare(before: Figure, after: Figure) -> Change | None:
    """The change of one figure; None where the two were measured with different settings."""
    if before.settings != after.settings or before.measurement.unit != after.measurement.unit:
        return None
    first, second = scores(before), scores(after)
    better = after.measurement.better
    if first and first.keys() == second.keys():
        pairs = [(first[key], second[key]) for key in first]
        found = paired_difference([a for a, _ in pairs], [b for _, b in pairs])
        verdict = _verdict(found.mean, found.p, better)
        return Change(found.mean, found.interval, found.p, True, found.items, verdict)
    mean = after.measurement.value - before.measurement.value
    items = min(before.measurement.items, after.measurement.items)
    error = math.hypot(_error(before.measurement), _error(after.measurement))
    if not math.isfinite(error):
        return Change(mean, None, None, False, items, "unclear" if mean else "same")
    p = math.erfc(abs(mean) / error / math.sqrt(2)) if error else float(mean == 0)
    half = 1.959964 * error
    interval = (mean - half, mean + half)
    return Change(mean, interval, p, False, items, _verdict(mean, p, better))


def with_interval(figure: Figure) -> Figure:
    """Bits per character or byte without an interval get that of their documents, where those were kept."""
    measurement = figure.measurement
    length = _LENGTHS.get(measurement.unit)
    if measurement.interval or length is None or len(found := scores(figure)) < 2:
        return figure
    records = {(str(r["part"]), str(r["id"])): r for r in figure.records}
    bits, lengths = zip(
        *((records[key]["score"], records[key][length]) for key in found), strict=True
    )
    return replace(
        figure, measurement=replace(measurement, interval=bootstrap_ratio(bits, lengths))
    )


def scores(figure: Figure) -> dict[tuple[str, str], float]:
    """What a paired comparison takes, by part and id of the item: its mean is the figure.

    Of bits per character it is the bits of a document over the mean length. {} where no choice of the items
    gives the figure: the measurement is no mean of them.
    """
    *_, last = figure.measurement.name.split("/")
    records = figure.records
    for chosen in (
        [r for r in records if r.get("part") == last],
        [r for r in records if r.get("part") == figure.measurement.name],
        [r for r in records if not r.get("apart")],
        records,
    ):
        found = _values(chosen, _LENGTHS.get(figure.measurement.unit))
        if not found or len(found) < len(chosen):
            continue
        mean = sum(found.values()) / len(found)
        if abs(mean - figure.measurement.value) <= 1e-3 * max(1.0, abs(mean)):
            return found
    return {}


def _values(
    records: Sequence[Mapping[str, Any]], length: str | None
) -> dict[tuple[str, str], float]:
    try:
        mean = sum(float(r[length]) for r in records) / len(records) if length and records else 1.0
        return {(str(r["part"]), str(r["id"])): float(r["score"]) / mean for r in records}
    except (KeyError, TypeError, ValueError, ZeroDivisionError):  # not all of them have a score
        return {}


def _verdict(mean: float, p: float, better: str) -> Verdict:
    if not p < SIGNIFICANT or mean == 0:
        return "same"
    if better == "neither":
        return "changed"
    return "better" if (mean > 0) == (better == "higher") else "worse"


def _error(measurement: Measurement) -> float:
    """The standard error that the interval stands for, as of a normal distribution."""
    if measurement.interval is None:
        return math.inf
    low, high = measurement.interval
    return (high - low) / (2 * 1.959964)
