"""The settings of what is measured on long contexts, passkeys apart."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from mengya.config import Config, OneOrMany
from mengya.data.ingest.texts import TextSource
from mengya.evaluation.long_context.tasks.kinds import Kind


class LongContextConfig(Config):
    """Documents, questions and tasks by length bucket."""

    edges: list[PositiveInt] = [4096, 8192]
    """Where the buckets begin and end, in tokens: 0-4k, 4-8k, 8k+."""
    texts: OneOrMany[TextSource] = []
    """Long documents for nats and bits per character by bucket; a path alone means {path: ...}."""
    documents: int = Field(default=64, ge=1)
    """Documents of each bucket at most."""
    questions: int = Field(default=40, ge=0)
    """Questions of each bucket about facts in documents made by rules; 0 asks none."""
    shortest: int = Field(default=512, ge=64)
    """Shortest of those documents, in tokens with its question."""
    longest: int = Field(default=32768, ge=64)
    """Longest of them; less where the model's context is shorter."""
    tasks: OneOrMany[Path] = []
    """Files in LongBench's layout: {input, context, answers, length, dataset, all_classes} a line."""
    prompts: Path | None = None
    """JSON file with a prompt for each data set, in which {context} and {input} are filled in, such as
    LongBench's dataset2prompt.json; null: ours, with which figures cannot be compared to LongBench's."""
    kinds: dict[str, Kind] = {}
    """How data sets are scored that are not LongBench's own, {NAME: f1_zh}."""
    words: Literal["characters", "jieba"] = "characters"
    """What Chinese is compared by: characters, or words of jieba as in LongBench (extra longbench)."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many items of each data set."""
    max_bad_lines: int = Field(default=0, ge=0)
    """Unreadable lines of texts and of tasks to skip before giving up."""
    seed: int = Field(default=0, ge=0)
    """Of the documents made by rules, and of bootstrap intervals."""

    @field_validator("edges")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        if not value or value != sorted(set(value)):
            raise ValueError("must be ascending lengths, for example [4096,8192]")
        return value

    @model_validator(mode="after")
    def _measures_something(self) -> LongContextConfig:
        if not (self.texts or self.questions or self.tasks):
            raise ValueError("nothing to measure: write texts=PATH, tasks=PATH or questions=40")
        if self.longest < self.shortest:
            raise ValueError(
                f"longest={self.longest} is below shortest={self.shortest}; write longest=32768"
            )
        return self
