"""The settings of the check of training text for exam items."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mengya.config import Config, OneOrMany, PathConfig


class ExamSource(PathConfig):
    path: str
    """A folder in CMMLU's or C-Eval's layout, or a file, folder or glob of records: JSONL, JSON, CSV,
    parquet, also .gz."""
    field: str | list[str] | None = None
    """The field that holds the question, at any depth of a record; several of one object are joined. null:
    question, problem, prompt, input or text, the first that the records have."""
    name: str | None = None
    """Its name in the report; null: that of the folder or file."""


class ContaminationConfig(Config):
    exams: OneOrMany[ExamSource] = Field(min_length=1)
    """Exams whose items are looked for; a plain path stands for {path: ...}."""
    ngram: int = Field(default=13, ge=5, le=64)
    """Characters of a run that is compared; letters and digits only count."""
    share: float = Field(default=0.7, gt=0, le=1)
    """The part of a long question's runs that a document must hold to count as a copy of it."""
    action: Literal["report", "drop"] = "report"
    """report: say which items stand where; drop: also leave those documents out, as `contaminated`."""
