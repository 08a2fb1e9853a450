"""The hidden file in a folder that was made of a checkpoint: the path of that checkpoint.

Hidden files are never pushed, so no path of this machine becomes public.
"""

from __future__ import annotations

import json
from pathlib import Path

from mengya.runtime.files import write_text

SOURCE = ".mengya-source.json"


def write_source(checkpoint: Path, directory: Path) -> None:
    """Note in a folder what it was made from."""
    values = {"checkpoint": str(checkpoint.resolve())}
    write_text(directory / SOURCE, json.dumps(values, ensure_ascii=False) + "\n")


def read_source(directory: Path) -> Path | None:
    """The checkpoint that a folder was made from; None where it does not say so."""
    try:
        named = json.loads((directory / SOURCE).read_text(encoding="utf-8"))["checkpoint"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return Path(named) if isinstance(named, str) and named else None
