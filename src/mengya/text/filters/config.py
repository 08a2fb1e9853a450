"""The settings of the filters and edits of text."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from mengya.config import Config


class FilterConfig(Config):
    """A section that is given is on; one that is null is off; one that is not given is as `base` says."""

    base: Literal["none", "standard"] = "none"
    """Which sections are on without being named: none, or all that suit Chinese text from the web."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"base": value} if isinstance(value, str) else value
