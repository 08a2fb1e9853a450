"""Light cleaning of text, and filters that give the reason why something is dropped.

`clean_text` changes characters only: Unicode normalisation, line ends, control and invisible characters. A long
document is kept unless a limit is set. Knows nothing of files or tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from pydantic import Field, model_validator

from mengya.config import Config
from mengya.data.ingest.messages import Message
from mengya.data.ingest.schema import Conversation, Document, Preference, Sample

_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Control characters but tab and newline, soft hyphen, zero-width space and marks of direction, word joiner, byte order
# mark, noncharacters. Zero-width joiners stay: emoji and some scripts are written with them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufdd0-\ufdef\ufeff\ufffe\uffff]"
)


class CleanConfig(Config):
    """What is done to text before it is tokenized, and what is dropped."""

    unicode: Literal["NFC", "NFKC", "none"] = "NFC"
    """Unicode normalisation; NFKC also turns full-width letters and punctuation into plain ones."""
    control_characters: bool = True
    """Remove control, zero-width and byte order characters, and write every line end as one newline."""
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
    """The text with tidy characters and no white space around it."""
    if config.control_characters:
        text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))
    if config.unicode != "none" and not text.isascii():
        text = unicodedata.normalize(config.unicode, text)
    return text.strip()


def clean_sample(sample: Sample, config: CleanConfig) -> Sample:
    """The sample with every text in it cleaned."""
    if isinstance(sample, Document):
        return Document(clean_text(sample.text, config))
    if isinstance(sample, Conversation):
        return replace(sample, messages=_clean_messages(sample.messages, config))
    return replace(
        sample,
        prompt=_clean_messages(sample.prompt, config),
        chosen=_clean_messages(sample.chosen, config),
        rejected=_clean_messages(sample.rejected, config),
    )


def drop_reason(sample: Sample, config: CleanConfig) -> str | None:
    """Why a cleaned sample is dropped (empty, too_short, too_long, empty_turn, same_answers); None when it is kept."""
    if isinstance(sample, Document):
        size = len(sample.text)
        if size == 0:
            return "empty"
        if size < config.min_characters:
            return "too_short"
    else:
        if any(not _says_something(message) for message in _messages(sample)):
            return "empty_turn"
        if isinstance(sample, Preference) and sample.chosen == sample.rejected:
            return "same_answers"
        size = sum(len(message["content"]) for message in _messages(sample))
    return (
        "too_long" if config.max_characters is not None and size > config.max_characters else None
    )


def _messages(sample: Conversation | Preference) -> Iterator[Message]:
    if isinstance(sample, Conversation):
        yield from sample.messages
    else:
        yield from (*sample.prompt, *sample.chosen, *sample.rejected)


def _says_something(message: Message) -> bool:
    return bool(
        message["content"] or message.get("tool_calls") or message["role"] in ("system", "tool")
    )


def _clean_messages(messages: list[Message], config: CleanConfig) -> list[Message]:
    """Content and reasoning cleaned; tool calls are data and stay as they are."""
    texts = ("content", "reasoning_content")
    return [{k: clean_text(v, config) if k in texts else v for k, v in m.items()} for m in messages]
