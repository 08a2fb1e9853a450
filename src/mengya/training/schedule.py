"""The learning rate as a pure function of the step: nothing to save, nothing to restore wrongly."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from mengya.config import Config


class ScheduleConfig(Config):
    name: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    """Shape after the warm-up. wsd = warm-up, stable, decay."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Steps of linear warm-up; give this or warmup_ratio."""
    warmup_ratio: float | None = Field(default=None, ge=0, le=1)
    """Warm-up as a share of max_steps; 0.02 when neither is given."""
    decay_ratio: float = Field(default=0.2, gt=0, le=1)
    """wsd: the last share of the steps, over which the rate falls linearly."""
    min_lr_ratio: float = Field(default=0.1, ge=0, le=1)
    """The rate at the last step, as a share of the peak."""

    @model_validator(mode="after")
    def _one_warmup(self) -> ScheduleConfig:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("warmup_steps and warmup_ratio say the same thing; keep one of them")
        return self


def lr_factor(step: int, max_steps: int, schedule: ScheduleConfig) -> float:
    """Share of the peak learning rate used by `step` (counted from 0) of `max_steps`."""
    warmup = _warmup(max_steps, schedule)
    if step < warmup:
        return (step + 1) / warmup
    floor = schedule.min_lr_ratio
    done = (step - warmup) / max(1, max_steps - 1 - warmup)
    match schedule.name:
        case "constant":
            return 1.0
        case "linear":
            remaining = 1 - done
        case "cosine":
            remaining = 0.5 * (1 + math.cos(math.pi * done))
        case "wsd":
            remaining = min(1.0, (max_steps - 1 - step) / _decay(max_steps, schedule))
    return floor + (1 - floor) * min(1.0, max(0.0, remaining))


def decay_start(max_steps: int, schedule: ScheduleConfig) -> int | None:
    """The first step of wsd whose rate is below the peak for the decay; None for other shapes."""
    if schedule.name != "wsd":
        return None
    return max(max_steps - _decay(max_steps, schedule), _warmup(max_steps, schedule))


def _warmup(max_steps: int, schedule: ScheduleConfig) -> int:
    ratio = 0.02 if schedule.warmup_ratio is None else schedule.warmup_ratio
    return round(ratio * max_steps) if schedule.warmup_steps is None else schedule.warmup_steps


def _decay(max_steps: int, schedule: ScheduleConfig) -> int:
    return max(1, round(schedule.decay_ratio * max_steps))
