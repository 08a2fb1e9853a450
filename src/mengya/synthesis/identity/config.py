"""The settings of `mengya identity`."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from mengya.config import Config
from mengya.endpoint.config import EndpointConfig
from mengya.text.identity.known import known_assistant

_MARKS = re.compile(r"[<>{}\[\]【】《》|\\\"“”]")
LanguageCode = Literal["en", "zh-Hant", "ja", "ko", "fr", "de", "es", "ru"]


class IdentityConfig(Config):
    out: Path
    """Folder to write: conversations.jsonl, held_out.jsonl, questions.jsonl (to test with) and
    report.json."""
    name: str
    """What the model is called; not as a well-known assistant of another maker is."""
    author: str
    """Who made it: a person, a team or a company."""
    kind: str = "AI 助手"
    """What it says it is, in Chinese, so that 一个... can stand before it: AI 助手, 中文语言模型 ..."""
    count: int = Field(default=400, ge=20, le=5000)
    """Conversations, those that are held out among them."""
    languages: list[LanguageCode] = ["en", "zh-Hant", "ja", "ko", "fr", "de", "es", "ru"]
    """Languages other than simplified Chinese."""
    language_share: float = Field(default=0.2, ge=0, le=0.9)
    """Share of the conversations in these languages together; half of them in the first one when it is en."""
    held_out: float = Field(default=0.15, ge=0, lt=0.9)
    """Share of the wordings of questions that are not trained on, and of conversations, which have them."""
    seed: int = 0
    """Other conversations from the same parts."""
    paraphrase: int = Field(default=0, ge=0)
    """So many questions more, reworded by the model of `endpoint`; 0 needs no endpoint."""
    endpoint: EndpointConfig = EndpointConfig()
    overwrite: bool = False
    """Replace conversations that were made with other settings."""

    @field_validator("name", "author", "kind")
    @classmethod
    def _plain(cls, value: str) -> str:
        value = unicodedata.normalize("NFC", value.strip())
        if not value or len(value) > 40:
            raise ValueError("must have 1 to 40 characters")
        if found := _MARKS.search(value):
            raise ValueError(f"holds {found[0]}, as a placeholder does; write the name itself")
        if not value.isprintable():
            raise ValueError("holds a line break or an invisible character; write it in one line")
        return value

    @model_validator(mode="after")
    def _own_name(self) -> IdentityConfig:
        known = known_assistant(self.name)
        if known is not None and not known.is_made_by(self.author):
            raise ValueError(
                f"name {self.name!r} is that of an assistant of {known.makers[0]}: the conversations would "
                f"have your model say that {self.author} made it, and deny that it is others like it; write "
                "a name of your own, for example name=小芽"
            )
        return self
