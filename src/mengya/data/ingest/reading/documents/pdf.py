"""PDF files -> text, by PDFium (the library of Chrome)."""

from __future__ import annotations

import threading

import pypdfium2

from mengya.data.ingest.reading.documents.extract import DocumentError, Extracted
from mengya.text.pages import join_pages

_LOCK = threading.Lock()  # PDFium is not thread-safe


def extract(content: bytes) -> Extracted:
    """All pages, their lines joined to paragraphs, running heads and page numbers left out."""
    with _LOCK:
        pages, bad = _pages(content)
    return Extracted(join_pages(pages), bad)


def _pages(content: bytes) -> tuple[list[str], list[tuple[int, str]]]:
    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        locked = "password" in str(error).lower()
        raise DocumentError("locked with a password" if locked else f"no PDF: {error}") from None
    pages, bad = [], []
    with document:
        for number in range(len(document)):
            try:
                pages.append(_text(document, number))
            except pypdfium2.PdfiumError as error:
                bad.append((number + 1, f"page {number + 1} cannot be read: {error}"))
    return pages, bad


def _text(document: pypdfium2.PdfDocument, number: int) -> str:
    page = document[number]
    try:
        text_page = page.get_textpage()
        try:
            return text_page.get_text_bounded()
        finally:
            text_page.close()
    finally:
        page.close()
