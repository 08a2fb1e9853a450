"""A share of right answers and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mengya.measured.intervals import bootstrap_mean, wilson


@dataclass(frozen=True)
class Score:
    """Share of right answers, Wilson's 95 % interval around it, and the number of questions."""

    accuracy: float
    interval: tuple[float, float]
    questions: int

    @classmethod
    def of(cls, right: int, questions: int) -> Score:
        return cls(right / questions, wilson(right, questions), questions)


def score_of(values: Sequence[float]) -> Score:
    """The mean of item scores: Wilson's interval where every one is 0 or 1, else the bootstrap's."""
    if all(value in (0, 1) for value in values):
        return Score.of(round(sum(values)), len(values))
    return Score(sum(values) / len(values), bootstrap_mean(values), len(values))
