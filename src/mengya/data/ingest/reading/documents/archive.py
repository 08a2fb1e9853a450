"""Zip archives of documents (Word, EPUB), with a limit on what they unpack to."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

from mengya.data.ingest.reading.documents.extract import DocumentError

MAX_UNPACKED = 512 << 20  # bytes: a small archive may unpack to terabytes


@contextmanager
def open_archive(content: bytes) -> Iterator[zipfile.ZipFile]:
    """The archive.

    Raises:
        DocumentError: it is none, or unpacks to more than `MAX_UNPACKED`.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, ValueError, OverflowError) as error:
        raise DocumentError(f"damaged: {error}") from None
    with archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_UNPACKED:
            raise DocumentError(f"unpacks to more than {MAX_UNPACKED >> 20} MiB")
        yield archive
