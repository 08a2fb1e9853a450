"""Instructions to begin with: ours, or those of the user's files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mengya.data.ingest.messages import SchemaError
from mengya.data.ingest.reading.files import find_files
from mengya.data.ingest.reading.read import parse_chunk, read_chunks
from mengya.data.ingest.reading.records import BadLine, BadLines
from mengya.data.ingest.schema import to_document
from mengya.data.ingest.texts import TextSource
from mengya.errors import UserError
from mengya.runtime.yaml_values import load_yaml

_OURS = Path(__file__).with_name("seeds.yaml")
_FIELDS = ["instruction", "text"]  # of records, when no field is named


def load_seeds(sources: Sequence[TextSource], needed: int, bad_lines: BadLines) -> list[str]:
    """One instruction a line of a text file, or a record of another.

    Raises:
        UserError: fewer than `needed`, too many bad lines, or a source without files.
    """
    if not sources:
        return load_yaml(_OURS.read_text(encoding="utf-8"))
    seeds = list(dict.fromkeys(filter(None, map(str.strip, _read(sources, bad_lines)))))
    if len(seeds) < needed:
        raise UserError(
            f"sources give {len(seeds)} seed instructions, and a request shows {needed} of them; add more, "
            f"or write shown={max(1, len(seeds))}"
        )
    return seeds


def _read(sources: Sequence[TextSource], bad_lines: BadLines) -> Iterator[str]:
    for source in sources:
        fields = _FIELDS if source.field == "text" else source.field
        for file in find_files(source.path):
            for chunk in read_chunks(file, source.encoding, "line"):
                for parsed in parse_chunk(chunk):
                    if isinstance(parsed, BadLine):
                        bad_lines.add(parsed)
                        continue
                    try:
                        yield to_document(parsed.value, fields).text
                    except SchemaError as error:
                        bad_lines.add(BadLine(parsed.file, parsed.line, str(error)))
