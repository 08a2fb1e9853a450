"""The names in the checkpoints folder of a run: step-000200, and `latest` and `best`, which name one of them.

`latest` and `best` are symbolic links; on a file system without any, text files that hold the name. What a
copy made of the links (a folder each, nothing, a text file) is read as well.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

LINKS = ("best", "latest")
_MAX_NAME = 256  # bytes read of a file that may hold a name


def step_folders(folder: Path) -> list[Path]:
    """The checkpoints in a checkpoints folder, by step."""
    found = (p for p in folder.glob("step-*") if re.fullmatch(r"step-\d+", p.name))
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def follow(link: Path) -> Path:
    """The checkpoint folder that `latest` or `best` names; the path itself where there is none.

    A link that was lost is found again: `latest` is the newest checkpoint, `best` the one that the newest
    one's trainer/state.json names. Any other path is itself.
    """
    if link.name not in LINKS or link.is_dir():
        return link
    named = _read_name(link) if link.is_file() else None
    if named is None:
        newest = next(reversed(step_folders(link.parent)), None)
        if newest is not None:
            named = newest if link.name == "latest" else _best_of(newest)
    return named if named is not None and named.is_dir() else link


def _read_name(file: Path) -> Path | None:
    with file.open("rb") as opened:
        name = opened.read(_MAX_NAME).decode(errors="replace").strip()
    return file.parent / name if re.fullmatch(r"step-\d+", name) else None


def _best_of(checkpoint: Path) -> Path | None:
    try:
        state = json.loads((checkpoint / "trainer/state.json").read_text(encoding="utf-8"))
        return checkpoint.with_name(f"step-{int(state['best_step']):06d}")
    except (OSError, ValueError, TypeError, KeyError):
        return None
