"""The settings of repeated text."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mengya.config import Config


class RepeatedTextConfig(Config):
    unit: Literal["line", "substring"] = "line"
    """line: a long line that stands in an earlier document is removed; substring: any run of characters that
    stands in one, even in the middle of a sentence."""
    min_characters: int = Field(default=50, ge=20)
    """Shorter lines and runs stay. White space and case do not count in a line."""
    max_removed: float = Field(default=0.5, gt=0, le=1)
    """A document that would lose more than this share of its characters is dropped, unless it keeps a passage
    that others lose."""
