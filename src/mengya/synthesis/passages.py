"""Documents -> passages of a size that a model can be asked about, each with its file and line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, model_validator

from mengya.config import Config
from mengya.data.ingest.reading.files import file_kind
from mengya.data.ingest.reading.records import BadLines
from mengya.data.ingest.texts import TextSource, read_texts_of_files
from mengya.text.clean import CleanConfig, clean_text

_SENTENCE_END = re.compile(r"(?<=[。！？!?；;\n])")


class PassageConfig(Config):
    """How documents are cut."""

    min_characters: int = Field(default=80, ge=1)
    """Leave out passages with fewer characters."""
    max_characters: int = Field(default=1200, ge=100)
    """Cut documents between paragraphs, or between sentences of a longer one, into pieces of at most this."""
    limit: int | None = Field(default=None, ge=1)
    """Use only so many passages, the first of all sources."""

    @model_validator(mode="after")
    def _order(self) -> PassageConfig:
        if self.min_characters > self.max_characters:
            raise ValueError(
                f"min_characters {self.min_characters} is above max_characters {self.max_characters}; "
                f"write min_characters={self.max_characters // 4}"
            )
        return self


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document, and where it stands."""

    text: str
    file: str
    line: int


def read_passages(
    sources: Iterable[TextSource], config: PassageConfig, bad_lines: BadLines
) -> Iterator[Passage]:
    """The passages of all sources in order.

    Raises:
        UserError: a source has no files, or there are too many bad lines.
    """
    clean = CleanConfig(white_space="none")  # lines are counted
    documents = (
        Passage(clean_text(text, clean), file, line)
        for text, file, line in read_texts_of_files(sources, bad_lines)
    )
    found = (piece for document in documents for piece in cut(document, config))
    for number, passage in enumerate(found):
        if number == config.limit:
            return
        yield passage


def cut(document: Passage, config: PassageConfig) -> Iterator[Passage]:
    """Pieces that end with a paragraph, or with a sentence where the paragraph is too long."""
    counts_lines = file_kind(Path(document.file)) == "text"  # else the line is that of the record
    piece, start, line = "", document.line, document.line
    for part in (*_parts(document.text, config.max_characters), None):
        if part is None or len(piece) + len(part) > config.max_characters:
            bare = piece.lstrip()
            blank = piece[: len(piece) - len(bare)].count("\n") if counts_lines else 0
            if len(bare.rstrip()) >= config.min_characters:
                yield Passage(bare.rstrip(), document.file, start + blank)
            piece, start = "", line
        piece += part or ""
        line += (part or "").count("\n") if counts_lines else 0


def _parts(text: str, most: int) -> Iterator[str]:
    """Paragraphs with their line ends; of longer ones the sentences; of longer ones pieces."""
    for paragraph in text.splitlines(keepends=True):
        if len(paragraph) <= most:
            yield paragraph
            continue
        for sentence in _SENTENCE_END.split(paragraph):
            yield from (sentence[at : at + most] for at in range(0, len(sentence), most))
