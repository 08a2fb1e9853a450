"""Atomic writes of files and folders: complete or absent, also after a crash or power cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Atomically replace a file: a reader, or a crash half-way, sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling folder that becomes `path` when the block ends without an error.

    Every file is flushed to disk before the rename, so after a power cut the folder is there
    complete or not at all. An older folder at `path` stays until the new one is whole.
    """
    import shutil

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        sync_tree(temporary)
        replace_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, and itself, to disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(FileNotFoundError):  # another process may rename its own while we look
            _sync(path)
    _sync(folder)


def replace_directory(whole: Path, path: Path) -> None:
    """Rename the folder `whole`, already flushed, to its sibling `path`.

    What stood there is set aside as `.NAME.old` and removed last: at every moment one of them is whole.
    """
    import shutil

    old = path.with_name(f".{path.name}.old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    whole.rename(path)
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def point_link(link: Path, target: str) -> None:
    """Make or move a relative symbolic link in one step."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
