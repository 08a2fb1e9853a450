"""Plain texts out of files: what the tokenizer is trained on and evaluation reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mengya.config import PathConfig
from mengya.data.ingest.messages import SchemaError
from mengya.data.ingest.read import read_records
from mengya.data.ingest.records import BadLine, BadLines
from mengya.data.ingest.schema import to_document


class TextSource(PathConfig):
    path: str
    """File, folder or glob: JSONL, JSON, parquet, CSV or plain text, also .gz and .zst."""
    field: str | list[str] = "text"
    """The field that holds the text; several are joined by line breaks."""
    encoding: str = "utf-8"
    """Encoding of the files."""


def read_texts(sources: Iterable[TextSource], max_bad_lines: int) -> Iterator[str]:
    """Every text of the sources; unreadable lines are passed over until there are too many."""
    bad_lines = BadLines(max_bad_lines)
    for source in sources:
        for record in read_records(source.path, bad_lines, encoding=source.encoding):
            try:
                text = to_document(record.value, source.field).text
            except SchemaError as error:
                bad_lines.add(BadLine(record.file, record.line, str(error)))
                continue
            yield text
