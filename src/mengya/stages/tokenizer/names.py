"""Names of folders and files as tables show them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def short_names(paths: Sequence[str]) -> list[str]:
    """The last parts of paths, as many as tell them apart: a/tokenizer and b/tokenizer keep their folders."""
    for count in range(1, max(len(Path(path).parts) for path in paths) + 1):
        short = [str(Path(*Path(path).parts[-count:])) for path in paths]
        if len(set(short)) == len(set(paths)):
            return short
    return list(paths)
