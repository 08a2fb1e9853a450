"""Files -> records, streaming: JSONL, JSON, parquet, CSV/TSV, plain text (also .gz or .zst) and documents.

`read_chunks` cuts a file into runs of raw records of about a megabyte (what one process hands to another);
`parse_chunk` makes `Record`s and `BadLine`s of them; `read_records` is all of it in one process. A line that
cannot be read is never an error here but a `BadLine` with file, line and reason; `BadLines` counts them and
raises above a limit. Knows nothing of what the fields mean.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from mengya.data.ingest.reading.compressed import DAMAGE, open_stream
from mengya.data.ingest.reading.documents.chunks import document_chunk, parse_document
from mengya.data.ingest.reading.documents.kinds import is_document
from mengya.data.ingest.reading.encoding import AUTO, as_utf8, detect_encoding
from mengya.data.ingest.reading.files import file_kind, find_files
from mengya.data.ingest.reading.json_values import json_chunks
from mengya.data.ingest.reading.records import MAX_RECORD, BadLine, BadLines, Chunk, Record, damage
from mengya.data.ingest.reading.tables import csv_chunks, parquet_chunks
from mengya.runtime.unicode import is_unicode

MAX_TEXT = 8 << 20  # bytes: a longer plain text file becomes several documents, cut at line ends

TextSplit = Literal["file", "line", "blank_line"]


def read_chunks(
    path: Path, encoding: str = AUTO, split_text: TextSplit = "file"
) -> Iterator[Chunk]:
    """Cut one file into chunks, the same ones every time. Damaged files end early with a bad line."""
    kind = file_kind(path)
    if kind == "parquet":
        yield from parquet_chunks(path)
        return
    if is_document(kind):
        yield document_chunk(path, kind)
        return
    encoding = detect_encoding(path) if encoding == AUTO else encoding
    with open_stream(path) as (raw, position):
        for chunk in stream_chunks(path, raw, encoding, split_text):
            chunk.position = position()
            yield chunk


def stream_chunks(
    path: Path, raw: IO[bytes], encoding: str, split_text: TextSplit = "file"
) -> Iterator[Chunk]:
    """The chunks of an open file, uncompressed already, of the kind that its name says; not of parquet."""
    kind = file_kind(path)
    stream, encoding = as_utf8(raw, encoding)
    if kind == "csv":
        return csv_chunks(path, stream, encoding)
    if kind == "json":
        return json_chunks(path, stream, encoding)
    if kind == "text" and split_text != "line":
        return _text_chunks(path, stream, encoding, split_text == "blank_line")
    return _line_chunks(path, stream, encoding, "text" if kind == "text" else "json")


def parse_chunk(chunk: Chunk) -> Iterator[Record | BadLine]:
    """Parse every item of a chunk, in order of their lines."""
    bad = iter(sorted(chunk.bad))
    next_bad = next(bad, None)
    for line, item in zip(chunk.lines, chunk.items, strict=True):
        while next_bad and next_bad[0] < line:
            yield BadLine(chunk.file, *next_bad)
            next_bad = next(bad, None)
        if chunk.form == "value":
            yield Record(item, chunk.file, line)
            continue
        if chunk.form == "document":
            yield from parse_document(chunk, item)
            continue
        try:
            text = item.removeprefix(b"\xef\xbb\xbf").decode(chunk.encoding)
            value = {"text": text} if chunk.form == "text" else _parse_json(text)
        except UnicodeDecodeError as error:
            inner = line + item.count(b"\n", 0, error.start)
            yield BadLine(
                chunk.file,
                inner,
                f"not valid {chunk.encoding} at byte {error.start} ({error.reason})",
            )
        except RecursionError:
            yield BadLine(chunk.file, line, "nested too deeply")
        except ValueError as error:
            yield BadLine(chunk.file, line, str(error))
        else:
            yield Record(value, chunk.file, line)
    while next_bad:
        yield BadLine(chunk.file, *next_bad)
        next_bad = next(bad, None)


def read_records(
    pattern: str, bad_lines: BadLines, *, encoding: str = AUTO, split_text: TextSplit = "file"
) -> Iterator[Record]:
    """Every record of a file, folder or glob; what cannot be read goes to `bad_lines`."""
    for path in find_files(pattern):
        for chunk in read_chunks(path, encoding, split_text):
            for parsed in parse_chunk(chunk):
                if isinstance(parsed, BadLine):
                    bad_lines.add(parsed)
                else:
                    yield parsed


def _parse_json(text: str) -> Any:
    if not text.strip():
        raise ValueError("empty line")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        problem = error.msg.removesuffix(" at")
        raise ValueError(f"not JSON: {problem} at column {error.colno}") from None
    escapes = "\\ud" in text or "\\uD" in text
    if escapes and not is_unicode(json.dumps(value, ensure_ascii=False)):
        raise ValueError("half of a surrogate pair, which is no character")
    return value


def _line_chunks(
    path: Path, stream: IO[bytes], encoding: str, form: Literal["json", "text"]
) -> Iterator[Chunk]:
    chunk, number = Chunk(str(path), form, encoding), 0
    try:
        while line := stream.readline(MAX_RECORD):
            number += 1
            if len(line) == MAX_RECORD and not line.endswith(b"\n"):
                chunk.bad.append(
                    (number, f"longer than {MAX_RECORD >> 20} MiB, the most of one record")
                )
                while (rest := stream.readline(MAX_RECORD)) and not rest.endswith(b"\n"):
                    continue
            elif (form == "json" or line.strip()) and chunk.add(
                number, line.rstrip(b"\r\n"), len(line)
            ):
                yield chunk
                chunk = Chunk(str(path), form, encoding)
    except DAMAGE as error:
        chunk.bad.append((number + 1, damage(error)))
    yield chunk


def _text_chunks(
    path: Path, stream: IO[bytes], encoding: str, by_blank_line: bool
) -> Iterator[Chunk]:
    """Documents of a text file: all of it as one, or the runs of lines between blank lines."""
    chunk, number, first, size = Chunk(str(path), "text", encoding), 0, 1, 0
    lines: list[bytes] = []
    cut = b""  # the beginning of a character that a long line was cut in
    try:
        while line := cut + stream.readline(MAX_TEXT):
            line, cut = _at_character(line, encoding) if len(line) >= MAX_TEXT else (line, b"")
            number += line.endswith(b"\n")
            ends = by_blank_line and not line.strip()
            if not ends:
                lines.append(line)
                size += len(line)
            if lines and (ends or size >= MAX_TEXT - len(cut)):
                if chunk.add(first, b"".join(lines), size):
                    yield chunk
                    chunk = Chunk(str(path), "text", encoding)
                lines, size = [], 0
            if not lines:
                first = number + 1
    except DAMAGE as error:
        chunk.bad.append((number + 1, damage(error)))
    if lines:
        chunk.add(first, b"".join(lines), size)
    yield chunk


def _at_character(line: bytes, encoding: str) -> tuple[bytes, bytes]:
    """A line without the character that is cut off at its end, and the bytes of that."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        decoder.decode(line)
    except UnicodeDecodeError:
        return line, b""
    rest = len(decoder.getstate()[0])
    return line[: len(line) - rest], line[len(line) - rest :]
