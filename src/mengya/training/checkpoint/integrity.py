"""Whether a checkpoint still is what was written: size and SHA-256 of every file, in trainer/sha256.json.

Takes a folder; gives its record, or what is wrong with it. Knows nothing of the contents.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mengya.runtime.files import write_text

RECORD = Path("trainer/sha256.json")


def seal(folder: Path) -> None:
    """Write the record of every file in `folder`: {path: {bytes, sha256}}."""
    record = {
        name: {"bytes": path.stat().st_size, "sha256": _digest(path)}
        for name, path in _files(folder).items()
    }
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")


def find_damage(folder: Path) -> str | None:
    """The first file that is not as it was sealed, and how; None when all are."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        expected = {str(n): (int(of["bytes"]), str(of["sha256"])) for n, of in record.items()}
    except FileNotFoundError:
        return f"{RECORD} is missing, so the folder cannot be checked"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{RECORD} cannot be read ({error!r})"
    found = _files(folder)
    for name, (size, digest) in expected.items():
        if name not in found:
            return f"{name} is missing"
        try:
            if (actual := found[name].stat().st_size) != size:
                return f"{name} has {actual} bytes, {size} were written"
            if _digest(found[name]) != digest:
                return f"{name} was altered: its SHA-256 is not the one in {RECORD}"
        except OSError as error:
            return f"{name} cannot be read ({error})"
    return None


def sealed_files(folder: Path) -> list[str]:
    """What was written into the folder, the record last; of one without a readable record all there is."""
    try:
        names = list(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        names = list(_files(folder))
    return [*names, str(RECORD)]


def _files(folder: Path) -> dict[str, Path]:
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / RECORD)
    return {p.relative_to(folder).as_posix(): p for p in paths}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
