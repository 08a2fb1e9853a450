"""A share of right answers and how sure it is: Wilson's 95 % interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
