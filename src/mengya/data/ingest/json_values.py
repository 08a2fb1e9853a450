"""A JSON array, or a sequence of JSON values, of any size -> chunks, without holding the file in memory."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mengya.data.ingest.compressed import DAMAGE
from mengya.data.ingest.records import MAX_RECORD, Chunk, damage

BLOCK = 1 << 18


def json_chunks(path: Path, stream: IO[bytes], encoding: str) -> Iterator[Chunk]:
    """The elements of the array that the file is, or the values that follow one another in it.

    Where a value is malformed the next one cannot be found: one bad line, and the rest is not read.
    """
    reader = _Values(stream, encoding)
    chunk = Chunk(str(path), "value")
    try:
        for line, value, size in reader:
            if chunk.add(line, value, size):
                yield chunk
                chunk = Chunk(str(path), "value")
    except UnicodeDecodeError as error:
        chunk.bad.append(
            (
                reader.line,
                f"not valid {encoding} ({error.reason}); the rest of this file is not read",
            )
        )
    except RecursionError:
        chunk.bad.append((reader.line, "nested too deeply; the rest of this file is not read"))
    except ValueError as error:
        chunk.bad.append((reader.line, f"not JSON: {error}; the rest of this file is not read"))
    except DAMAGE as error:
        chunk.bad.append((reader.line, damage(error)))
    yield chunk


class _Values:
    """Yields (line, value, characters) from a growing buffer that is cut off as values leave it."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        name = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
        self.line = 1
        self._stream, self._decode = stream, codecs.getincrementaldecoder(name)()
        self._buffer, self._at, self._ended = "", 0, False

    def __iter__(self) -> Iterator[tuple[int, object, int]]:
        parse = json.JSONDecoder().raw_decode
        in_array = self._peek() == "["
        if in_array:
            self._at += 1
        while (character := self._peek(skip=",")) and character != "]":
            try:
                value, end = parse(self._buffer, self._at)
            except json.JSONDecodeError as error:
                if self._ended or len(self._buffer) - self._at > MAX_RECORD:
                    raise ValueError(error.msg) from None
                self._read_more()
                continue
            if (
                end == len(self._buffer) and not self._ended
            ):  # a number may continue in the next block
                self._read_more()
                continue
            json.dumps(value, ensure_ascii=False).encode()  # refuses halves of surrogate pairs
            yield self.line, value, end - self._at
            self._advance(end)
        if in_array and not character:
            raise ValueError("the array is not closed")

    def _peek(self, skip: str = "") -> str:
        """The next character that is neither white space nor in `skip`; empty at the end."""
        while True:
            at = self._at
            while at < len(self._buffer) and (
                self._buffer[at].isspace() or self._buffer[at] in skip
            ):
                at += 1
            self._advance(at)
            if at < len(self._buffer):
                return self._buffer[at]
            if self._ended:
                return ""
            self._read_more()

    def _advance(self, to: int) -> None:
        self.line += self._buffer.count("\n", self._at, to)
        self._at = to

    def _read_more(self) -> None:
        """Double what is unread, so that a value of n characters is parsed O(log n) times."""
        rest = self._buffer[self._at :]
        data = self._stream.read(max(BLOCK, len(rest)))
        self._ended = not data
        self._buffer, self._at = rest + self._decode.decode(data, final=not data), 0
