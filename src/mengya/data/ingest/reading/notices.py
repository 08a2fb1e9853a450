"""What a reader of files says on the terminal: what was left out, and which encodings were found."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from rich.console import Console

from mengya.data.ingest.reading.files import FoundFiles, shown_counts


def say_left_out(pattern: str, found: FoundFiles) -> None:
    """Name the kinds of the files that are not read, with counts."""
    if found.left_out:
        _say_once(f"{pattern}: left out {shown_counts(found.left_out)}")


def say_encodings(encodings: Mapping[Path, str]) -> None:
    """Name the files (path -> encoding) that are not in UTF-8, up to three of each encoding."""
    for encoding in dict.fromkeys(encodings.values()):
        files = [str(path) for path, found in encodings.items() if found == encoding]
        if encoding != "utf-8":
            more = f" and {len(files) - 3:,} more" if len(files) > 3 else ""
            _say_once(f"read as {encoding}: {', '.join(files[:3])}{more}")


@cache
def _say_once(text: str) -> None:
    """Once a process: a source may be read several times."""
    Console(stderr=True).print(text, soft_wrap=True, highlight=False, markup=False)
