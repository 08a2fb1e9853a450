"""Where a run stands among the reference curves: what they had after as many tokens, in numbers and words.

Between two sizes a reference is interpolated, straight in log parameters and log bits. Nothing is known of
a run but its size and its curve: the causes of a lag are causes.py's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mengya.evaluation.reference.curves import ReferenceRun, interpolate

NORMAL = 0.05  # share of bits by which runs on other text differ without anything being wrong
NEAR_SIZE = 1.5  # a model so many times larger or smaller is still compared without a note
_ROUNDING = 1e-4  # of the bits in curves.json
_GRID = 400  # points on which the tokens of a level are looked for


@dataclass(frozen=True)
class RunCurve:
    """A run from random weights: bits per character on the reference text by tokens, at least one point."""

    name: str
    parameters: int
    active_parameters: int
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Placement:
    """The last point of a run against the references.

    Attributes:
        tokens, bits: of the run.
        reference: what it is compared with, in words.
        expected: bits of the reference after as many tokens.
        share: tokens after which the reference was where the run is, as a share of the run's; 0 where that
            was before its first point, infinite where it never was.
        notes: what limits the comparison.
    """

    tokens: int
    bits: float
    reference: str
    expected: float
    share: float
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Literal["normal", "behind", "ahead"]:
        ratio = self.bits / self.expected
        if ratio > 1 + NORMAL:
            return "behind"
        return "ahead" if ratio < 1 - NORMAL else "normal"

    def sentence(self) -> str:
        """Where the run stands, for a person."""
        start = (
            f"{self.bits:.2f} bits per character after {_count(self.tokens)} tokens; {self.reference} had "
            f"{self.expected:.2f}"
        )
        verdicts = {
            "normal": f"normal (within {NORMAL:.0%})",
            "behind": f"{self.bits / self.expected - 1:.0%} more: behind",
            "ahead": f"{1 - self.bits / self.expected:.0%} less: ahead",
        }
        if self.share == 0:
            where = "; the reference was there before its first measurement"
        elif math.isinf(self.share):
            where = "; the reference never came so far"
        else:
            where = f"; the reference was there after {self.share:.2f} of your tokens"
        notes = "".join(f" {note}." for note in self.notes)
        return f"{start}: {verdicts[self.verdict]}{where}.{notes}"


def place(run: RunCurve, references: Sequence[ReferenceRun]) -> Placement | None:
    """Compare the last point of `run`; None where no reference has been measured so early."""
    tokens, bits = run.points[-1]
    notes: list[str] = []
    mixture = run.active_parameters < run.parameters
    alike = [r for r in references if r.is_mixture == mixture]
    if not alike and references:
        notes.append("There is no mixture among the references: compared by active parameters")
    candidates = alike or list(references)
    covering = [r for r in candidates if r.covers(tokens)]
    at = float(tokens)
    if not covering:
        ended = [r for r in candidates if r.tokens[-1] < tokens]
        if not ended:
            return None
        longest = max(r.tokens[-1] for r in ended)
        covering = [r for r in ended if r.tokens[-1] == longest]
        at = float(longest)
        notes.append(f"The reference ended after {_count(longest)} tokens: compared with its end")
    smaller, larger = _bracket(run.active_parameters, covering)
    ratio = run.active_parameters / smaller.active_parameters
    if smaller is larger and not 1 / NEAR_SIZE < ratio < NEAR_SIZE:
        times = f"{ratio:.1f} times as large" if ratio > 1 else f"{ratio:.2f} of its size"
        curve = "lower" if ratio > 1 else "higher"
        notes.append(
            f"{smaller.name} is the nearest in size, yours is {times}: expect a {curve} curve"
        )

    def expected(after: float) -> float:
        return interpolate(
            run.active_parameters,
            [r.active_parameters for r in dict.fromkeys((smaller, larger))],
            [r.bits_at(after) for r in dict.fromkeys((smaller, larger))],
        )

    first = max(smaller.tokens[0], larger.tokens[0])
    last = min(smaller.tokens[-1], larger.tokens[-1])
    words = f"the reference {smaller.name} ({_count(smaller.active_parameters)})"
    if smaller is not larger:
        words = (
            f"a reference between {smaller.name} ({_count(smaller.active_parameters)}) and {larger.name} "
            f"({_count(larger.active_parameters)})"
        )
    share = _tokens_at(bits, expected, first, last) / tokens
    return Placement(tokens, bits, words, expected(at), share, tuple(notes))


def _bracket(parameters: int, runs: Sequence[ReferenceRun]) -> tuple[ReferenceRun, ReferenceRun]:
    """The references next to a size, from below and above; the nearest twice beyond the ends."""
    ordered = sorted(runs, key=lambda run: run.active_parameters)
    below = [run for run in ordered if run.active_parameters <= parameters]
    above = [run for run in ordered if run.active_parameters >= parameters]
    smaller, larger = (below or above[:1])[-1], (above or below[-1:])[0]
    return (
        (smaller, larger)
        if smaller.active_parameters < larger.active_parameters
        else (smaller, smaller)
    )


def _tokens_at(bits: float, expected: Callable[[float], float], first: int, last: int) -> float:
    """After how many tokens the reference first had so few bits; 0 before `first`, infinite after `last`."""
    bits *= 1 + _ROUNDING
    if expected(first) < bits:
        return 0.0
    steps = (first * (last / first) ** (i / _GRID) for i in range(_GRID + 1))
    return next((tokens for tokens in steps if expected(tokens) <= bits), math.inf)


def _count(number: float) -> str:
    """26.9M, 1.2B, 940k."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"
