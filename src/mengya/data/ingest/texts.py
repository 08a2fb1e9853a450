"""Plain texts out of files: what the tokenizer is trained on and evaluation reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mengya.config import PathConfig
from mengya.data.ingest.messages import SchemaError
from mengya.data.ingest.reading.encoding import AUTO, detect_encoding
from mengya.data.ingest.reading.files import find_data
from mengya.data.ingest.reading.notices import say_encodings, say_left_out
from mengya.data.ingest.reading.read import parse_chunk, read_chunks
from mengya.data.ingest.reading.records import BadLine, BadLines
from mengya.data.ingest.schema import to_document


class TextSource(PathConfig):
    path: str
    """File, folder or glob: JSONL, JSON, parquet, CSV or plain text, also .gz and .zst."""
    field: str | list[str] = "text"
    """The field that holds the text; several are joined by line breaks."""
    encoding: str = AUTO
    """Encoding of the files; auto finds UTF-8, UTF-16, gb18030 and big5 for each."""


class TextOfFile(NamedTuple):
    """A text, and where its record begins."""

    text: str
    file: str
    line: int


def read_texts(
    sources: Iterable[TextSource],
    bad_lines: BadLines,
    advance: Callable[[Path, int], object] = lambda file, position: None,
) -> Iterator[str]:
    """Every text of the sources; as `read_texts_of_files`."""
    return (found.text for found in read_texts_of_files(sources, bad_lines, advance))


def read_texts_of_files(
    sources: Iterable[TextSource],
    bad_lines: BadLines,
    advance: Callable[[Path, int], object] = lambda file, position: None,
) -> Iterator[TextOfFile]:
    """Every text of the sources, and where it stands.

    Args:
        bad_lines: counts the lines that are skipped because they give no text.
        advance: called with a file and how many of its bytes are read.

    Raises:
        UserError: a source has no files, or there are too many bad lines.
    """
    for source in sources:
        found = find_data(source.path)
        say_left_out(source.path, found)
        encodings = dict.fromkeys(found.files, source.encoding)
        if source.encoding == AUTO:
            encodings = {file: detect_encoding(file) for file in found.files}
            say_encodings(encodings)
        for file, encoding in encodings.items():
            for chunk in read_chunks(file, encoding):
                for parsed in parse_chunk(chunk):
                    if isinstance(parsed, BadLine):
                        bad_lines.add(parsed)
                        continue
                    try:
                        text = to_document(parsed.value, source.field).text
                    except SchemaError as error:
                        bad_lines.add(BadLine(parsed.file, parsed.line, str(error)))
                        continue
                    yield TextOfFile(text, parsed.file, parsed.line)
                advance(file, chunk.position)
