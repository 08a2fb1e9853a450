"""What a yardstick is: a fixed set that ships with mengya, measured in the same way on every model.

It takes an opened checkpoint and the settings; gives figures, and one JSON record an item for the log and for
paired comparisons. registry.py has them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from mengya.config import Config
from mengya.evaluation.subject import Subject
from mengya.measured.measurement import Measurement


class YardstickConfig(Config):
    seed: int = Field(default=0, ge=0)
    """Draws of sampled answers, and of bootstrap intervals."""
    temperature: float = Field(default=0.7, gt=0)
    """Of the sampled answers; greedy ones are measured too."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer in tokens; less where the model's context is shorter."""
    limit: int | None = Field(default=None, ge=1)
    """Only so many items of every part, spread evenly; for a quick look. null takes all."""
    name: str | None = Field(default=None, min_length=1)
    """What the model is called: `identity` then says how often it gives this name."""
    author: str | None = Field(default=None, min_length=1)
    """Who made the model, for `identity` as well."""


@dataclass(frozen=True)
class YardstickResult:
    """Figures, and one record an item: {"part", "id", "score", ...} in a fixed order.

    `score` is the number that a paired comparison of two models takes; parts are the names of measurements
    without the yardstick.
    """

    measurements: list[Measurement]
    items: list[dict[str, Any]] = field(default_factory=list)


Yardstick = Callable[[Subject, YardstickConfig], YardstickResult]
