"""The folder of made conversations: its ledger, and the files that it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from mengya.data.ingest.reading.files import find_files

LEDGER = ".requests.jsonl"


def described_files(patterns: Iterable[str]) -> list[dict[str, str]]:
    """Every file that the patterns name, with its SHA-256."""
    files = list(dict.fromkeys(file for pattern in patterns for file in find_files(pattern)))
    return [{"path": str(path), "sha256": _sha256(path)} for path in files]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
