"""A document as a chunk: its bytes, which the process that parses it makes one record of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mengya.data.ingest.reading.documents.extract import DocumentError, extract
from mengya.data.ingest.reading.records import BadLine, Chunk, Record, damage
from mengya.runtime.unicode import is_unicode

MAX_DOCUMENT = 256 << 20  # bytes


def document_chunk(path: Path, kind: str) -> Chunk:
    """The file as a chunk of one item. One that cannot be read, or is too large, is a bad line."""
    chunk = Chunk(str(path), "document", kind)
    try:
        chunk.position = path.stat().st_size
        if chunk.position > MAX_DOCUMENT:
            chunk.bad.append((1, f"longer than {MAX_DOCUMENT >> 20} MiB, the most of one document"))
        else:
            chunk.add(1, path.read_bytes(), chunk.position)
    except OSError as error:
        chunk.bad.append((1, damage(error)))
    return chunk


def parse_document(chunk: Chunk, content: bytes) -> Iterator[Record | BadLine]:
    """The text as a record {text}, after a bad line for each page that could not be read."""
    try:
        extracted = extract(chunk.encoding, content)
    except DocumentError as error:
        yield BadLine(chunk.file, 1, " ".join(str(error).split()))
        return
    for page, reason in extracted.bad_pages:
        yield BadLine(chunk.file, page, " ".join(reason.split()))
    text = extracted.text
    if not is_unicode(text):  # halves of surrogate pairs, which PDF fonts may hold
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    yield Record({"text": text}, chunk.file, 1)
