"""Word files (.docx) -> text, by python-docx: paragraphs and tables in their order."""

from __future__ import annotations

import io
from collections.abc import Iterator

import docx
from docx.document import Document
from docx.table import Table, _Cell

from mengya.data.ingest.reading.documents.archive import open_archive
from mengya.data.ingest.reading.documents.extract import DocumentError, Extracted


def extract(content: bytes) -> Extracted:
    """A line for each paragraph; rows of tables with " | " between their cells."""
    with open_archive(content):
        pass  # its size is checked
    try:
        document = docx.Document(io.BytesIO(content))
        return Extracted("\n".join(_lines(document)))
    except Exception as error:  # the library raises many kinds for a damaged file
        raise DocumentError(f"no Word file: {type(error).__name__} {error}") from None


def _lines(container: Document | _Cell) -> Iterator[str]:
    for block in container.iter_inner_content():
        if isinstance(block, Table):
            yield from _rows(block)
        else:
            yield block.text


def _rows(table: Table) -> Iterator[str]:
    for row in table.rows:
        cells = []
        for cell in row.cells:
            text = " ".join(line for line in _lines(cell) if line)
            if not cells or cells[-1] != text:  # a merged cell is given once a column
                cells.append(text)
        yield " | ".join(cells)
