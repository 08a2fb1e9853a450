"""How many rows each step takes, and which row it begins with: pure functions of the step.

So the place in the data needs no saving, whether the batch grows during the run or not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import Field

from mengya.config import Config


class BatchRamp(Config):
    start: int = Field(ge=1)
    """Rows of the first steps: global_batch_size divided by a power of two."""
    steps: int = Field(ge=1)
    """Steps at each size, before it doubles."""


@dataclass(frozen=True)
class BatchSize:
    """`rows` at every step; with a ramp `start` at first, doubled every `steps` steps up to `rows`.

    Raises:
        ValueError: when rows is not ramp.start times a power of two.
    """

    rows: int
    ramp: BatchRamp | None = None

    def __post_init__(self) -> None:
        if self.ramp is not None and self.ramp.start << self._doublings != self.rows:
            raise ValueError(
                f"batch_ramp.start {self.ramp.start} must be global_batch_size {self.rows} divided by "
                f"a power of two, such as {self.rows // 4 if self.rows % 4 == 0 else self.rows}"
            )

    def at(self, step: int) -> int:
        """Rows of `step`, counted from 0."""
        if self.ramp is None:
            return self.rows
        return self.ramp.start << min(step // self.ramp.steps, self._doublings)

    def first_row(self, step: int) -> int:
        """Rows of all steps before `step`: the stages before are a geometric series."""
        if self.ramp is None:
            return step * self.rows
        stage = min(step // self.ramp.steps, self._doublings)
        before = self.ramp.start * self.ramp.steps * ((1 << stage) - 1)
        return before + (step - stage * self.ramp.steps) * self.at(step)

    def steps_for(self, rows: float) -> int:
        """The least number of steps that take at least `rows` rows."""
        step = 0
        if self.ramp is not None:
            stages = range(self._doublings)
            ends = [(stage + 1) * self.ramp.steps for stage in stages]
            step = max((end for end in ends if self.first_row(end) <= rows), default=0)
        return step + math.ceil((rows - self.first_row(step)) / self.at(step))

    @property
    def _doublings(self) -> int:
        assert self.ramp is not None
        return max(0, (self.rows // self.ramp.start).bit_length() - 1)
