"""The files of a folder that a push sends, and the table that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from mengya.errors import UserError

_EVALUATION = ("evaluation.json", "evaluation_items", "evaluation_unfinished.jsonl")


@dataclass(frozen=True)
class PushedFile:
    """
    Attributes:
        name: below the folder, with slashes.
    """

    name: str
    path: Path
    size: int


def files_to_push(folder: Path) -> list[PushedFile]:
    """All files but hidden ones (mengya's marker, an editor's leftovers) and those of an evaluation, by name.

    `mengya evaluate` wrote them later: they name files of this machine.

    Raises:
        UserError: a link, which may lead anywhere; or nothing to push.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in _EVALUATION or any(part.startswith(".") for part in name.parts):
            continue
        if path.is_symlink():
            raise UserError(f"{path} is a link: only files are pushed; put the file itself there")
        if path.is_file():
            found.append(PushedFile(name.as_posix(), path, path.stat().st_size))
    if not found:
        raise UserError(f"{folder} holds no files to push")
    return found


def files_table(files: Sequence[PushedFile]) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("file")
    table.add_column("bytes", justify="right")
    for file in files:
        table.add_row(file.name, f"{file.size:,}")
    table.add_section()
    table.add_row(f"{len(files)} files", f"{sum(file.size for file in files):,}")
    return table
