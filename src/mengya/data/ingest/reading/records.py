"""What reading a file gives: records, bad lines, and chunks of both.

`BadLines` counts bad lines and raises above a limit. Knows nothing of formats or of what fields mean.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from mengya.errors import UserError

MAX_RECORD = 64 << 20  # bytes of one line, or characters of one element of a JSON array
CHUNK_BYTES = 1 << 20
CHUNK_RECORDS = 4096
SHOWN_BAD = 10


@dataclass(frozen=True, slots=True)
class Record:
    """One record: `value` is a JSON value (nearly always a dict), `line` counts from 1 (rows, in parquet)."""

    value: Any
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that gives no record, and why."""

    file: str
    line: int
    reason: str


@dataclass(slots=True)
class Chunk:
    """A run of raw records of one file.

    Attributes:
        form: how to parse `items`: "json", "text" and "document" are bytes, "value" is parsed already.
        encoding: of those bytes; of a document, its kind.
        lines: the line number of every item.
        bad: lines that could not even be cut out: (line, reason).
        position: bytes of the file on disk that are read so far.
    """

    file: str
    form: Literal["json", "text", "document", "value"]
    encoding: str = "utf-8"
    lines: list[int] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)
    position: int = 0
    size: int = 0

    def add(self, line: int, item: Any, size: int) -> bool:
        """Append an item; say whether the chunk is large enough to be handed on."""
        self.lines.append(line)
        self.items.append(item)
        self.size += size
        return self.size >= CHUNK_BYTES or len(self.items) >= CHUNK_RECORDS

    def cut(self, limit: int) -> int:
        """Keep only the first `limit` items and what comes before their end; say how many are kept."""
        if len(self.items) > limit:
            self.bad = [bad for bad in self.bad if bad[0] < self.lines[limit]]
            del self.items[limit:], self.lines[limit:]
        return len(self.items)


class BadLines:
    """Counts bad lines, keeps the first thousand, and raises when there are more than `max_bad_lines`."""

    def __init__(self, max_bad_lines: int) -> None:
        self.max_bad_lines = max_bad_lines
        self.count = 0
        self.first: list[BadLine] = []

    def add(self, *bad: BadLine) -> None:
        """Count some.

        Raises:
            UserError: with the first few bad lines, when the limit is passed.
        """
        self.count += len(bad)
        self.first += bad[: max(0, 1000 - len(self.first))]
        if self.count > self.max_bad_lines:
            raise too_many_bad_lines(self.max_bad_lines, self.first)


def too_many_bad_lines(
    limit: int, first: list[BadLine], where: str = "", more: str = ""
) -> UserError:
    """The error that names the first of them; `where` and `more` add to it and to its remedy."""
    shown = "\n".join(f"  {b.file}:{b.line}: {b.reason}" for b in first[:SHOWN_BAD])
    return UserError(
        f"more than max_bad_lines={limit} bad lines{where}; the first of them:\n{shown}\n"
        f"fix the files, name the right format, or allow more with max_bad_lines=N{more}"
    )


def damage(error: BaseException) -> str:
    """How a broken or truncated compressed file is reported."""
    what = "ends in the middle" if isinstance(error, EOFError) else f"is damaged ({error})"
    kind = "compressed data" if isinstance(error, (EOFError, zlib.error)) else "the file"
    return f"{kind} {what}; the rest of this file is not read"


def texts_in(value: Any) -> Iterator[str]:
    """Every text of a JSON value, in its order; not the names of fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts_in(inner)
