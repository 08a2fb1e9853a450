"""Reference curves: bits per character on the reference text, by tokens, of runs of our own.

curves.json ships with mengya; benchmarks/reference_curves.py adds a run to it:

    {"format": 1, "text_sha256": "...", "runs": [{"name": "zh-26m", "parameters": 26879488, ...,
     "tokens": [2621440, ...], "bits_per_char": [7.91, ...]}]}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mengya.errors import UserError
from mengya.evaluation.reference.reference_text import reference_text_sha256
from mengya.runtime.files import write_text

CURVES = Path(__file__).parent / "curves.json"
FORMAT = 1


@dataclass(frozen=True)
class ReferenceRun:
    """A run from random weights, measured on the way.

    Attributes:
        parameters, active_parameters: as planning/sizes.py counts them; they differ in a mixture of experts.
        vocabulary: ids of its tokenizer.
        data, optimizer, commit: what a person must know of it, in words; the commit of mengya.
        tokens: that it was trained on, rising. bits_per_char: on the reference text, after so many.
    """

    name: str
    parameters: int
    active_parameters: int
    vocabulary: int
    data: str
    optimizer: str
    commit: str
    tokens: tuple[int, ...]
    bits_per_char: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in pairwise((0, *self.tokens)))
        if not (rising and len(self.tokens) == len(self.bits_per_char) >= 2):
            raise ValueError(
                f"{self.name}: a curve is two or more points, with tokens that rise from above 0"
            )
        if not all(math.isfinite(bits) and bits > 0 for bits in self.bits_per_char):
            raise ValueError(f"{self.name}: bits per character are above 0")

    @property
    def is_mixture(self) -> bool:
        return self.active_parameters < self.parameters

    def covers(self, tokens: float) -> bool:
        return self.tokens[0] <= tokens <= self.tokens[-1]

    def bits_at(self, tokens: float) -> float:
        """Interpolated, straight on logarithmic axes; at an end beyond it."""
        return interpolate(tokens, self.tokens, self.bits_per_char)


def interpolate(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """The value at x of the line through the points, straight in log x and log y; xs rise."""
    if x <= xs[0]:
        return ys[0]
    for (x0, y0), (x1, y1) in pairwise(zip(xs, ys, strict=True)):
        if x <= x1:
            share = math.log(x / x0) / math.log(x1 / x0)
            return math.exp((1 - share) * math.log(y0) + share * math.log(y1))
    return ys[-1]


def load_curves(path: Path = CURVES) -> list[ReferenceRun]:
    """The runs of the file, from small to large.

    Raises:
        UserError: it is not such a file, or holds for another text.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["text_sha256"] != reference_text_sha256():
            raise UserError(
                f"{path} holds for another reference text than this mengya has: make its curves again with "
                "benchmarks/reference_curves.py"
            )
        runs = [_run(each) for each in values["runs"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} holds no reference curves: {error}") from error
    return sorted(runs, key=lambda run: run.active_parameters)


def save_curves(runs: Sequence[ReferenceRun], path: Path = CURVES) -> None:
    """Write the file."""
    ordered = [asdict(run) for run in sorted(runs, key=lambda run: run.active_parameters)]
    values = {"format": FORMAT, "text_sha256": reference_text_sha256(), "runs": ordered}
    write_text(path, json.dumps(values, ensure_ascii=False, indent=1) + "\n")


def _run(values: Mapping[str, Any]) -> ReferenceRun:
    curve = {name: tuple(values[name]) for name in ("tokens", "bits_per_char")}
    return ReferenceRun(**{**values, **curve})
