"""Paths that verbs may write to: not the folders that hold everything else, nor what is read."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from contextlib import suppress
from fnmatch import fnmatchcase
from glob import has_magic
from pathlib import Path

from mengya.errors import UserError


def check_path(path: Path, key: str, verb: str) -> None:
    """Refuse the folders that hold everything else, and files.

    Raises:
        UserError: with a path to write instead.
    """
    place = path.resolve()
    home = Path(os.path.expanduser("~")).resolve()  # noqa: PTH111 (Path.home may find none and raise)
    if place.exists() and not place.is_dir():
        kind = "a file" if place.is_file() else "a device, pipe or socket"
        raise UserError(f"{key}={path} is {kind}; write {typed(key, Path(path.name))}")
    for name, kept in (("current folder", Path.cwd().resolve()), ("home folder", home)):
        if kept.is_relative_to(place):
            what = f"is the {name}" if kept == place else f"holds the {name}"
            raise UserError(
                f"{key}={path} {what}; a folder of its own is needed: write {typed(key, path / verb)}"
            )


def check_outside(path: Path, key: str, sources: Iterable[str | Path]) -> None:
    """Refuse a folder inside one that is read: the next run would read its own output.

    Raises:
        UserError: with a path to write instead.
    """
    inside = [(source, root) for source in sources for root in _holds(source, path.resolve())]
    if inside:
        source, root = min(inside, key=lambda of: len(of[1].parts))
        free = root.parent / f"{root.name}-{path.resolve().name}"
        with suppress(ValueError):
            free = free.relative_to(Path.cwd())
        remedy = (
            f"write {typed(key, free)}"
            if root.name
            else "name the folder of the data as the source"
        )
        raise UserError(
            f"{key}={path} is inside the source {source}, which would then hold what is written; {remedy}"
        )


def check_around(path: Path, inputs: Iterable[str | Path]) -> None:
    """Refuse a folder that holds what is read: it would be replaced by what is made of it.

    Raises:
        UserError: with a path to write instead.
    """
    place = path.resolve()
    for source in inputs:
        if _root(source).resolve().is_relative_to(place):
            raise UserError(
                f"{source} is read, and inside out={path}, which is written; "
                f"write {typed('out', path)}"
            )


def typed(key: str, path: Path) -> str:
    """What to type to write to that path, or next to it where something is there."""
    return f"{key}={shlex.quote(str(free_name(path)))}"


def free_name(path: Path) -> Path:
    """That path where nothing is there, else a sibling of it that does not exist."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _root(source: str | Path) -> Path:
    """Of a glob the folder before the first wildcard, else the path itself."""
    path = Path(source)
    if path.exists() or not has_magic(str(source)):
        return path
    fixed = 0
    while not has_magic(path.parts[fixed]):
        fixed += 1
    return Path(*path.parts[:fixed])


def _holds(source: str | Path, place: Path) -> list[Path]:
    """The folder of `source` that holds `place`, resolved; nothing when no file below `place` is read."""
    root = _root(source)
    folder = root.resolve()
    if not folder.is_dir() or not place.is_relative_to(folder):
        return []
    patterns = Path(source).parts[len(root.parts) :]
    names = place.relative_to(folder).parts
    for pattern, name in zip(patterns, names, strict=False):
        if pattern == "**":
            return [folder]
        if not fnmatchcase(name, pattern):
            return []
    return [folder] if not patterns or len(patterns) > len(names) else []
