"""Light cleaning of text, and the limits on its length.

`clean_text` changes characters only: Unicode normalisation, line ends, control and invisible characters. A
long document is kept unless a limit is set.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from pydantic import Field, model_validator

from mengya.config import Config
from mengya.text.indentation import indentation

# It begins with a plain character class, which the engine skips to.
_LINE_ENDS = re.compile("[\r\x0b\x0c\x85\u2028\u2029](?:(?<=\r)\n)?")
# Control characters but tab and newline, soft hyphen, zero-width space and marks of direction, word joiner,
# byte order mark, noncharacters. Zero-width joiners stay: emoji and some scripts are written with them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e"
    "\u2060\u2066-\u2069\ufdd0-\ufdef\ufeff\ufffe\uffff]"
)


class CleanConfig(Config):
    """What is done to text before it is tokenized, and what is dropped."""

    unicode: Literal["NFC", "NFKC", "none"] = "NFC"
    """Unicode normalisation; NFKC also makes full-width letters and punctuation plain ones."""
    control_characters: bool = True
    """Remove control, zero-width and byte order characters, and write every line end as one newline."""
    white_space: Literal["indentation", "all", "none"] = "indentation"
    """What is removed around a text: all but the indentation of its first line (a tab, or two spaces or more,
    before an ASCII character), which code needs; all white space; or none."""
    min_characters: int = Field(default=5, ge=0)
    """Drop a text document with fewer characters."""
    max_characters: int | None = Field(default=None, ge=1)
    """Drop a sample with more characters; null keeps long documents, which are split into rows later."""

    @model_validator(mode="after")
    def _limits(self) -> CleanConfig:
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError(
                f"max_characters {self.max_characters} is below min_characters {self.min_characters}"
            )
        return self


def clean_text(text: str, config: CleanConfig) -> str:
    """The text with tidy characters, and the white space around it removed as `white_space` says."""
    if config.control_characters:
        text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))
    if config.unicode != "none" and not text.isascii():
        text = unicodedata.normalize(config.unicode, text)
    if config.white_space == "none":
        return text
    body = text.lstrip()
    if config.white_space == "indentation":
        start = text[: len(text) - len(body)].replace("\r", "\n").rfind("\n") + 1
        body = indentation(text[start:]) + body
    return body.rstrip()


def too_short(text: str, config: CleanConfig) -> str | None:
    """Why a cleaned document is dropped for what it lacks (empty, too_short); None when it is kept."""
    if not text or text.isspace():
        return "empty"
    return "too_short" if len(text) < config.min_characters else None


def too_long(characters: int, config: CleanConfig) -> str | None:
    """too_long when a sample of so many characters is dropped, else None."""
    limit = config.max_characters
    return "too_long" if limit is not None and characters > limit else None
