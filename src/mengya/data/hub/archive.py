"""The CSV files of a zip archive, as the exams are published: nothing else in it is written."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from mengya.data.hub.data_hub import check_name
from mengya.errors import UserError

MAX_UNPACKED = 256 << 20  # bytes of all files: an exam has a few megabytes
_BLOCK = 1 << 20


def unpack_tables(archive: Path, folder: Path, repo: str) -> list[str]:
    """Write the CSV files below `folder`; their names there, sorted.

    Raises:
        UserError: it is no archive, has none, unpacks to too much, or a name leads out of the folder.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if _is_table(entry.filename)]
            if not entries:
                raise UserError(
                    f"{archive.name} of {repo} holds no CSV file: name others with files="
                )
            left = MAX_UNPACKED
            for entry in entries:
                check_name(entry.filename, repo)
                left -= _write(opened, entry, folder / entry.filename, left)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"{archive.name} of {repo} cannot be unpacked: {error}") from None
    return sorted(entry.filename for entry in entries)


def _is_table(name: str) -> bool:
    return name.lower().endswith(".csv") and not name.startswith("__MACOSX/")


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, left: int) -> int:
    """Copy one file; its size, whatever the archive says of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with opened.open(entry) as packed, path.open("wb") as file:
        while block := packed.read(_BLOCK):
            size += len(block)
            if size > left:
                raise UserError(
                    f"an archive unpacks to more than {MAX_UNPACKED >> 20} MiB: not an exam"
                )
            file.write(block)
    return size
