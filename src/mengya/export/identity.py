"""Which checkpoint it was: its path and the SHA-256 of its weights and tokenizer, for parity.json."""

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
        "checkpoint": str(folder),
        "weights_sha256": digest.hexdigest(),
        "tokenizer_sha256": tokenizer_hash(folder),
    }
