"""A share of right answers and how sure it is: Wilson's 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mengya.evaluation.intervals import bootstrap_mean

_Z = 1.959964  # standard deviations on either side that hold 95 % of a normal distribution


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval (Wilson 1927) of successes / trials, at 95 %.

    Unlike the normal approximation it stays inside [0, 1] and is right for few trials.
    """
    if trials == 0:
        return 0.0, 1.0
    share, z = successes / trials, _Z
    spread = z / trials * math.sqrt(share * (1 - share) * trials + z * z / 4)
    centre = share + z * z / (2 * trials)
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


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
