"""The bytes of one document -> its text, and the pages that could not be read.

Knows nothing of chunks. A page that fails is noted and the others are read; only a file that is no document
of its kind, or is locked, gives nothing.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field


class DocumentError(Exception):
    """Why a file gives no text, in a few words."""


@dataclass
class Extracted:
    """The text of a document.

    Attributes:
        bad_pages: (number from 1, reason) of pages or chapters that could not be read.
    """

    text: str
    bad_pages: list[tuple[int, str]] = field(default_factory=list)


def extract(kind: str, content: bytes) -> Extracted:
    """The text of a document of a kind of `DOCUMENTS`.

    Raises:
        DocumentError: it is damaged, locked, has no text, or is not of that kind.
    """
    # Imported here: its library is an extra.
    reader = importlib.import_module(f"mengya.data.ingest.reading.documents.{kind}")
    extracted: Extracted = reader.extract(content)
    if not extracted.text.strip():
        pages = f" ({extracted.bad_pages[0][1]})" if extracted.bad_pages else ""
        raise DocumentError(f"no text in it{pages}; pages that are pictures need OCR first")
    return extracted
