"""Which checkpoint it was, for parity.json, which a push makes public: its name, not where it lies, and the
SHA-256 of its weights and tokenizer."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mengya.tokenizer.load import tokenizer_hash


def identify(folder: Path) -> dict[str, Any]:
    """Of a model folder, or an adapter's own files; every byte is read."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return {
        "checkpoint": checkpoint_name(folder),
        "weights_sha256": digest.hexdigest(),
        "tokenizer_sha256": tokenizer_hash(folder),
    }


def checkpoint_name(folder: Path) -> str:
    """That of the folder, after that of its run if it is in one: sft/step-000300."""
    place = folder.resolve()
    if place.parent.name == "checkpoints":
        return f"{place.parent.parent.name}/{place.name}"
    return place.name
