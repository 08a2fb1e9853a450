"""Atomic writes of files and folders: complete or absent, also after a crash or power cut."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path

from mengya.errors import UserError


def write_text(path: Path, text: str, mode: int = 0o666) -> None:
    """Atomically replace a file: a reader, or a crash half-way, sees the old text or the new one.

    Args:
        mode: permissions of the file, less those that the umask takes.

    Raises:
        UserError: `path` is a folder, or a device, pipe or socket, which a rename would take away from the
            system: root that writes to /dev/null would be left with a file there.
    """
    check_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        opener = partial(os.open, mode=mode)
        with open(temporary, "w", encoding="utf-8", opener=opener) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = str(
            path
        )  # a full disk names none, and the temporary file is nobody's business
        raise
    finally:
        with suppress(OSError):  # what kept it from being made is the error to report
            temporary.unlink(missing_ok=True)


def check_file(path: Path) -> None:
    """Refuse what is no file, before work is done that it should take.

    Raises:
        UserError: a folder, device, pipe or socket is there.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device, pipe or socket"
        raise UserError(f"{path} is {kind}, and a file is to be written; name a file")


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, and itself, to disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(FileNotFoundError):  # another process may rename its own while we look
            sync_path(path)
    sync_path(folder)


def point_link(link: Path, target: str) -> None:
    """Make or move a relative symbolic link in one step; without links there, a text file of the name."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(target)
    except (
        OSError,
        NotImplementedError,
    ):  # exFAT, some network shares, Windows without the right to
        temporary.write_text(target + "\n", encoding="utf-8")
    temporary.replace(link)


def sync_path(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
