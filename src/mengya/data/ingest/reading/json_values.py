"""JSON arrays and JSON values one after the other, of any size -> chunks, without the file in memory.

A malformed value is one bad line; reading resumes at the next record where that can be found.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mengya.data.ingest.reading.compressed import DAMAGE
from mengya.data.ingest.reading.records import CHUNK_RECORDS, MAX_RECORD, Chunk, damage
from mengya.runtime.unicode import is_unicode

BLOCK = 1 << 18
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|[{}\[\]]')
_LONGEST_LITERAL = len("-Infinity")  # what the end of the buffer may cut, other than a string
_PREFIX = 200  # characters of a line before a record that are looked at


def json_chunks(path: Path, stream: IO[bytes], encoding: str) -> Iterator[Chunk]:
    """The elements of the arrays in the file and the values between them, in their order."""
    reader = _Values(stream, encoding)
    chunk = Chunk(str(path), "value")
    try:
        for line, value, size, problem in reader:
            if problem:
                chunk.bad.append((line, problem))
            full = not problem and chunk.add(line, value, size)
            if full or len(chunk.bad) >= CHUNK_RECORDS:
                yield chunk
                chunk = Chunk(str(path), "value")
    except DAMAGE as error:
        chunk.bad.append((reader.line, damage(error)))
    yield chunk


class _Values:
    """Yields (line, value, characters, problem or "") from a buffer that is cut as values leave it."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        name = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
        self.line = 1
        self._stream, self._encoding = stream, encoding
        # what is not valid passes as lone surrogates, so that one bad record does not end the file
        self._decode = codecs.getincrementaldecoder(name)(errors="surrogateescape")
        self._parse = json.JSONDecoder().raw_decode
        self._buffer, self._at, self._ended = "", 0, False
        self._prefix = ""  # what stands on the line before `_at`
        self._indent: str | None = None  # white space before the records that begin their lines
        self._keys: set[str] = set()  # of the last record that was an object

    def __iter__(self) -> Iterator[tuple[int, object, int, str]]:
        in_array = False
        while character := self._peek():
            if character == "]" or (character == "[" and not in_array):
                if character == "]" and not in_array:
                    yield self.line, None, 0, "a ] that closes no array"
                in_array = character == "["
                self._advance(self._at + 1)
                continue
            try:
                value, end = self._parse(self._buffer, self._at)
                problem = ""
            except json.JSONDecodeError as error:
                if self._may_continue(error):
                    self._read_more()
                    continue
                value, end, problem = None, -1, f"not JSON: {error.msg.removesuffix(' at')}"
            except RecursionError:
                value, end, problem = None, -1, "nested too deeply"
            if (
                end == len(self._buffer) and not self._ended
            ):  # a number may continue in the next block
                self._read_more()
                continue
            line = self.line
            if self._prefix.strip(" \t") == "":
                self._indent = self._prefix
            if problem:
                end = self._next_record(character)
                rest = "" if end >= 0 else "; the rest of this file is not read"
                yield line, None, 0, problem + rest
                if end < 0:
                    return
            elif problem := self._wrong_characters(value, end):
                yield line, None, 0, problem
            else:
                self._keys = set(value) if isinstance(value, dict) else set()
                yield line, value, end - self._at, ""
            self._advance(end)
        if in_array:
            yield self.line, None, 0, "the array is not closed; what comes before is read"

    def _may_continue(self, error: json.JSONDecodeError) -> bool:
        """Whether the value may only be cut off by the end of the buffer."""
        unfinished = error.msg.startswith("Unterminated string")
        at_end = error.pos >= len(self._buffer) - _LONGEST_LITERAL
        return (
            (unfinished or at_end)
            and not self._ended
            and len(self._buffer) - self._at <= MAX_RECORD
        )

    def _wrong_characters(self, value: object, end: int) -> str:
        if is_unicode(json.dumps(value, ensure_ascii=False)):
            return ""
        if re.search("[\udc80-\udcff]", self._buffer[self._at : end]):
            return f"not valid {self._encoding}"
        return "half of a surrogate pair, which is no character"

    def _next_record(self, opening: str) -> int:
        """Where the malformed record at `_at` ends or the next one begins; -1 when that cannot be found.

        Records that begin their lines are found by their indentation, others by counting brackets.
        """
        begins_line = self._prefix.strip(" \t[,") == ""
        ways = [self._end_of_brackets]
        if begins_line and self._indent is not None:
            ways.insert(0, self._same_indent)
        for find in ways:
            while (found := find(opening)) < 0:
                if self._ended or len(self._buffer) - self._at > MAX_RECORD:
                    break
                self._read_more()
            if found >= 0:
                return found
        return -1

    def _same_indent(self, opening: str) -> int:
        opening = opening if opening in '{["' else "{"
        pattern = re.compile(rf"\n{self._indent},?(?={re.escape(opening)})")
        for match in pattern.finditer(self._buffer, self._at):
            try:
                value, _ = self._parse(self._buffer, match.end())
            except (ValueError, RecursionError):
                return match.end()  # cut off, or malformed too
            inner = isinstance(value, dict) and self._keys and not self._keys & set(value)
            if not inner:
                return match.end()
        return -1

    def _end_of_brackets(self, opening: str) -> int:
        if opening not in "{[":
            match = re.compile(r"[,\n\]]").search(self._buffer, self._at)
            return match.start() if match else -1
        depth = 0
        for match in _TOKEN.finditer(self._buffer, self._at):
            token = match.group()
            depth += (token in "{[") - (token in "}]")
            if depth == 0 and token[0] != '"':
                follows = self._buffer[match.end() : match.end() + _PREFIX].lstrip()
                return match.end() if not follows or follows[0] in ',]{[\n"' else -1
        return -1

    def _peek(self) -> str:
        """The next character but white space, commas and byte order marks; empty at the end."""
        while True:
            at = self._at
            while at < len(self._buffer) and (
                self._buffer[at].isspace() or self._buffer[at] in ",\ufeff"
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
        break_at = self._buffer.rfind("\n", self._at, to)
        if break_at >= 0:
            self._prefix = self._buffer[break_at + 1 : to][-_PREFIX:]
        else:
            self._prefix = (self._prefix + self._buffer[max(self._at, to - _PREFIX) : to])[
                -_PREFIX:
            ]
        self._at = to

    def _read_more(self) -> None:
        """Double what is unread, so that a value of n characters is parsed O(log n) times."""
        rest = self._buffer[self._at :]
        data = self._stream.read(max(BLOCK, len(rest)))
        self._ended = not data
        self._buffer, self._at = rest + self._decode.decode(data, final=not data), 0
