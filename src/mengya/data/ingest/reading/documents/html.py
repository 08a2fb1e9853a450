"""HTML pages -> their main text, by trafilatura: no navigation, no advertisements, no scripts."""

from __future__ import annotations

import trafilatura

from mengya.data.ingest.reading.documents.extract import DocumentError, Extracted


def extract(content: bytes) -> Extracted:
    """The main text, tables included, in whatever encoding the page says or is found to be in."""
    try:
        text = trafilatura.extract(content, include_comments=False, include_tables=True)
    except Exception as error:  # parsers raise many kinds for damaged pages
        raise DocumentError(f"no HTML: {type(error).__name__} {error}") from None
    return Extracted(text or "")
