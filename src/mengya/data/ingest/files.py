"""A path, a folder or a glob -> the data files there, and what kind each is by its name."""

from __future__ import annotations

import difflib
import glob
from pathlib import Path

from mengya.errors import UserError

STRUCTURED = {
    ".jsonl": "lines", ".ndjson": "lines", ".json": "json", ".parquet": "parquet",
    ".csv": "csv", ".tsv": "csv",
}  # fmt: skip
TEXT = {".txt": "text", ".md": "text"}


def file_kind(path: Path) -> str | None:
    """lines, json, parquet, csv or text by the file's name, compression aside; None when unknown."""
    suffixes = [s.lower() for s in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] in (".gz", ".zst")
    if packed:
        suffixes.pop()
    kind = (STRUCTURED | TEXT).get(suffixes[-1]) if suffixes else None
    return None if packed and kind == "parquet" else kind


def find_files(pattern: str) -> list[Path]:
    """The files of a path, a folder (with its folders) or a glob, sorted by name.

    A folder gives its data files (JSONL, JSON, parquet, CSV), and its .txt and .md files only when it has no
    others, so that a README next to the data is not taken for data.

    Raises:
        UserError: nothing is there, or the kind of a named file is unknown.
    """
    path = Path(pattern)
    if path.is_file():
        if file_kind(path) is None:
            known = " ".join(STRUCTURED | TEXT)
            raise UserError(
                f"{path}: unknown kind of file; known are {known}, each also .gz or .zst"
            )
        return [path]
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")]
    else:
        found = [Path(p) for p in glob.glob(pattern, recursive=True) if Path(p).is_file()]  # noqa: PTH207
    kinds = {p: kind for p in sorted(found) if (kind := file_kind(p))}
    structured = [p for p, kind in kinds.items() if kind != "text"]
    files = structured if path.is_dir() and structured else list(kinds)
    if not files:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise UserError(f"{pattern}: no data files found{hint}")
    return files
