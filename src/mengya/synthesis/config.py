"""The settings of `mengya synth`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from mengya.config import Config, OneOrMany
from mengya.data.ingest.texts import TextSource
from mengya.endpoint.config import EndpointConfig
from mengya.synthesis.filters import SynthFilterConfig
from mengya.synthesis.passages import PassageConfig

ONLY_FOR = {
    "qa": ("per_passage", "show_passage", "passages"),
    "instructions": ("count", "per_request", "shown", "seed", "near_duplicates"),
}


class PromptsConfig(Config):
    """Your own prompts in the place of ours (src/mengya/synthesis/prompts): paths of text files."""

    qa: Path | None = None
    """Asks for questions and answers; with {{passage}} and {{count}}."""
    qa_turns: Path | None = None
    """Asks for a conversation about a passage, where turns is above 1; with {{passage}} and {{count}}."""
    instructions: Path | None = None
    """Asks for new instructions; with {{examples}} and {{count}}."""
    answer: Path | None = None
    """The system message with which instructions are answered."""
    follow_up: Path | None = None
    """Asks for what the user says next, where turns is above 1; with {{conversation}}."""


class SynthConfig(Config):
    out: Path
    """Folder to write: conversations.jsonl, report.json, and .requests.jsonl, the ledger of paid replies."""
    kind: Literal["qa", "instructions"]
    """qa: questions and answers from documents; instructions: new instructions from seeds, with answers."""
    sources: OneOrMany[TextSource] = []
    """qa: documents; instructions: own seed instructions, one a line or record (without: 48 of ours)."""
    per_passage: int = Field(default=3, ge=1, le=20)
    """qa: questions asked about a passage; conversations where turns is above 1."""
    count: int = Field(default=200, ge=1)
    """instructions: how many to write; what the filters drop of their answers is not made up for."""
    per_request: int = Field(default=8, ge=1, le=50)
    """instructions: how many a request asks for."""
    shown: int = Field(default=5, ge=1, le=20)
    """instructions: examples in a request; two in five are earlier new ones."""
    near_duplicates: bool = True
    """instructions: drop those that nearly equal an earlier one."""
    turns: int = Field(default=1, ge=1, le=8)
    """Questions with answers in one conversation at most."""
    system: str | None = None
    """A system message for every conversation."""
    show_passage: bool = False
    """qa: put the passage above the first question, for reading comprehension."""
    passages: PassageConfig = PassageConfig()
    prompts: PromptsConfig = PromptsConfig()
    filters: SynthFilterConfig = SynthFilterConfig()
    endpoint: EndpointConfig = EndpointConfig()
    seed: int = 0
    """instructions: other choices of examples."""
    max_bad_lines: int = Field(default=100, ge=0)
    """Unreadable lines of sources to skip before giving up."""
    overwrite: bool = False
    """Make the conversations again where they were made with other settings; paid replies are used again."""

    @model_validator(mode="after")
    def _documents(self) -> SynthConfig:
        if self.kind == "qa" and not self.sources:
            raise ValueError("questions are made from documents; write sources=PATH")
        return self

    @model_validator(mode="after")
    def _of_the_kind(self) -> SynthConfig:
        other = "instructions" if self.kind == "qa" else "qa"
        if given := [name for name in ONLY_FOR[other] if name in self.model_fields_set]:
            names = " and ".join(given)
            raise ValueError(f"{names}: for kind={other}, not kind={self.kind}; leave it out")
        used = {"qa" if self.turns == 1 else "qa_turns"}
        if self.kind == "instructions":
            used = {"instructions", "answer", *(["follow_up"] if self.turns > 1 else [])}
        for name, path in self.prompts:
            if path is not None and name not in used:
                raise ValueError(
                    f"prompts.{name} is not used with kind={self.kind} turns={self.turns}; its prompts are "
                    f"{', '.join(sorted(used))}"
                )
        return self
