"""What the registry says of one public data set."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import field_validator, model_validator

from mengya.config import Config, OneOrMany
from mengya.data.ingest.reading.encoding import AUTO

HubKey = Literal["huggingface", "modelscope"]
Fact = Literal["huggingface", "modelscope", "files", "license", "size", "fields", "gated"]


class Corpus(Config):
    kind: Literal["text", "conversation", "preference", "exam"]
    """What `prepare` makes of it; an exam is measured with `evaluate`, never trained on."""
    about: str
    """What it holds, in a few words."""
    huggingface: str | None = None
    """OWNER/NAME on Hugging Face."""
    modelscope: str | None = None
    """OWNER/NAME on ModelScope."""
    page: str | None = None
    """Where it is to be had when no hub has it."""
    files: OneOrMany[str] = []
    """Names of its files in the repository, with `*` (within a folder), `**` and `?`; none: all data."""
    license: str | None = None
    """As its page states; null: its page states none, or none was found."""
    gated: bool | None = None
    """Whether its owner asks for a login; null: not known."""
    size: str | None = None
    """Roughly, for people."""
    format: str | None = None
    """As in a source of `prepare`."""
    field: str | list[str] | None = None
    """As in a source of `prepare`."""
    columns: dict[str, str] = {}
    """As in a source of `prepare`."""
    encoding: str = AUTO
    """As in a source of `prepare`."""
    split_text: Literal["file", "line", "blank_line"] = "file"
    """As in a source of `prepare`."""
    faults: list[str] = []
    """What is known to be wrong with it, or to surprise."""
    looked_at: date | None = None
    """When its page, or a stored copy of it, was looked at."""
    verified: list[Fact] = []
    """The facts that were seen on its page then; the others come from public code that uses it."""

    @field_validator("huggingface", "modelscope")
    @classmethod
    def _two_parts(cls, value: str | None) -> str | None:
        if value is not None and (value.count("/") != 1 or not all(value.split("/"))):
            raise ValueError(f"{value!r} is not OWNER/NAME")
        return value

    @model_validator(mode="after")
    def _somewhere(self) -> Corpus:
        if not (self.huggingface or self.modelscope or self.page):
            raise ValueError("say where it is: huggingface, modelscope or page")
        return self

    @property
    def hubs(self) -> dict[HubKey, str]:
        """Its name on each hub that has it."""
        found: dict[HubKey, str | None] = {
            "huggingface": self.huggingface,
            "modelscope": self.modelscope,
        }
        return {hub: name for hub, name in found.items() if name}
