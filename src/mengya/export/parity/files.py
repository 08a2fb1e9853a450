"""Hashes of the files that a proof is about: parity.json holds them, and a push compares."""

from __future__ import annotations

import hashlib
from pathlib import Path

# Written after the proof, or by people: the card may be edited before a push, the model evaluated.
_NOT_PROVEN = (
    "parity.json", "README.md", "evaluation.json", "evaluation_items", "evaluation_unfinished.jsonl",
)  # fmt: skip


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 by name below the folder, hidden files left out."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.is_file() and not hidden and name.parts[0] not in _NOT_PROVEN:
            with path.open("rb") as file:
                hashes[name.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
