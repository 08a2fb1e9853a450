"""The folders that verbs write: nothing but what mengya made is ever replaced or removed.

    OUT/.mengya.json         the marker: the verb, the format of the marker, and the files that it wrote
    .OUT.mengya-partial/     what will become OUT
    .OUT.mengya-old/         what OUT was, while a new one takes its place
    .OUT.mengya-lock         who is writing OUT (folder_lock.py); of a run folder it is RUN/.mengya-lock

`open_folder` is for verbs that make a complete folder and then rename it into place; `open_run_folder` is for
those that add to a folder over time. Folders without a marker, which versions before it wrote, are known by
the names of their files and by a file that only the verb writes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mengya.errors import UserError
from mengya.runtime.files import sync_path, sync_tree, write_text
from mengya.runtime.folder_lock import hold_lock, say
from mengya.runtime.output_path import check_around, check_outside, check_path, typed
from mengya.version import check_format

MARKER, LOCK = ".mengya.json", ".mengya-lock"
FORMAT = 1  # of the marker
# `mengya evaluate` writes into the folder of a model.
_ADDED_LATER = (
    MARKER, "evaluation.json", "evaluation_items/*.jsonl", "evaluation_unfinished.jsonl",
    ".evaluation.json.mengya-lock",
)  # fmt: skip
_SHOWN = 5  # files that a message names


@dataclass(frozen=True)
class FolderKind:
    """What one verb writes.

    Attributes:
        verb: its name.
        names: of its files, relative to the folder, with `*` and `?` as in fnmatch.
        unmarked: whether a folder without a marker was certainly written by an earlier version.
    """

    verb: str
    names: tuple[str, ...]
    unmarked: Callable[[Path], bool] = lambda folder: False


class OutputFolder:
    """A folder that is made in `partial` and then takes the place of `path`; `open_folder` gives one."""

    def __init__(self, path: Path, kind: FolderKind) -> None:
        self.path, self.kind = path, kind
        self._place = path.resolve()
        self.partial = _beside(self._place, "partial")
        self._old = _beside(self._place, "old")

    def check_replaceable(self, overwrite: bool) -> None:
        """Refuse unless `path` is free, or holds only what mengya wrote and `overwrite` is true.

        Raises:
            UserError: otherwise, with the first files that are not mengya's.
        """
        own = _own_files(self._place, self.kind)
        marker = _marked(self._place)
        if marker is not None and marker["verb"] != self.kind.verb:
            raise UserError(
                f"{self.path} was written by `mengya {marker['verb']}`; write {typed('out', self.path)}"
            )
        foreign = [name for name in _entries(self._place) if name not in own]
        if foreign:
            raise UserError(
                f"{self.path} holds what `mengya {self.kind.verb}` did not write: {_some(foreign)}. "
                "Only its own files are ever replaced: move those out, or choose another "
                f"{typed('out', self.path)}"
            )
        if own and not overwrite:
            raise UserError(
                f"{self.path} exists, written by `mengya {self.kind.verb}`; what was made with it may need "
                f"it. Write overwrite=true to replace it, or choose another {typed('out', self.path)}"
            )

    def start(self) -> Path:
        """An empty partial folder; one that an earlier run left is removed."""
        if self.partial.is_symlink() or self.partial.exists():
            marker = _marked(self.partial)
            if marker is not None and marker["verb"] != self.kind.verb:
                raise UserError(
                    f"{self.partial} is what `mengya {marker['verb']}` has done so far of {self.path}: let "
                    f"that finish, or choose another {typed('out', self.path)}"
                )
            if self.partial.is_symlink() or (marker is None and _entries(self.partial)):
                raise UserError(
                    f"{self.partial} is in the way and mengya did not make it; move it elsewhere"
                )
            shutil.rmtree(self.partial)
        self.partial.mkdir(parents=True)
        _mark(self.partial, self.kind, [])
        return self.partial

    def adopt(self, earlier: Path, names: Collection[str]) -> None:
        """Continue `earlier`, which a version without markers left, if there is nothing in it but `names`."""
        if not self.partial.exists() and all(_matches(name, names) for name in _entries(earlier)):
            earlier.rename(self.partial)
            _mark(self.partial, self.kind, [])

    def publish(self) -> None:
        """Rename the finished partial folder to `path`; what was there goes when the new one is in place.

        Raises:
            UserError: files that are not mengya's have come into `path` meanwhile; or it cannot be renamed.
        """
        _mark(self.partial, self.kind, [name for name in _entries(self.partial) if name != MARKER])
        sync_tree(self.partial)
        self.check_replaceable(overwrite=True)
        own = _own_files(self._place, self.kind)
        try:
            replace_folder(self.partial, self._place, lambda old: remove_files(old, own))
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be replaced: {error}; if it is a mount point, write "
                f"{typed('out', self.path / self.kind.verb)}"
            ) from error

    def recover(self) -> None:
        """Undo what a process left that was killed between the two renames of `publish`.

        Raises:
            UserError: files that are not mengya's stand where the old folder is set aside.
        """
        if not self._old.is_dir():
            return
        if not self._place.exists():
            self._old.rename(self._place)
            say(f"{self.path} was being replaced when a run was killed: restored")
        elif not remove_files(self._old, _own_files(self._old, self.kind)):
            raise UserError(
                f"{self._old} is in the way, with files that mengya did not write: "
                f"{_some(_entries(self._old))}; move it elsewhere"
            )


@contextmanager
def open_folder(
    path: Path, kind: FolderKind, *, sources: Iterable[str | Path] = (), inputs: Iterable[Path] = ()
) -> Iterator[OutputFolder]:
    """Lock the folder that `out` names, and undo what a crash left there; nothing else is changed yet.

    Args:
        sources: files, folders and globs of data: neither may be in the other.
        inputs: folders that are read: none may be in `path`, which is going to be replaced.

    Raises:
        UserError: a path that is never written to, or a folder that another process is writing.
    """
    sources = list(sources)
    check_path(path, "out", kind.verb)
    check_outside(path, "out", sources)
    check_around(path, [*sources, *inputs])
    place = path.resolve()
    with hold_lock(_beside(place, "lock"), path, kind.verb, "out"):
        folder = OutputFolder(path, kind)
        folder.recover()
        yield folder


@contextmanager
def new_folder(
    path: Path,
    kind: FolderKind,
    *,
    overwrite: bool,
    sources: Iterable[str | Path] = (),
    inputs: Iterable[Path] = (),
) -> Iterator[Path]:
    """Yield a folder that becomes `path` when the block ends without an error, and is removed otherwise.

    Every file is flushed to disk before the rename, so after a power cut the folder is there complete or
    not at all. `sources`, `inputs`: as in `open_folder`.

    Raises:
        UserError: as `open_folder`; and `path` is there and may not be replaced.
    """
    with open_folder(path, kind, sources=sources, inputs=inputs) as folder:
        folder.check_replaceable(overwrite)
        partial = folder.start()
        try:
            yield partial
            folder.publish()
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def open_run_folder(
    path: Path, kind: FolderKind, *, sources: Iterable[str | Path] = (), key: str = "run_dir"
) -> Iterator[None]:
    """Lock and mark a folder that a run adds its files to; other files there stay untouched.

    Raises:
        UserError: a path that is never written to, a folder of another verb, one that holds files of the
            names that the run writes and is no run of earlier, or one that another process is writing.
    """
    check_path(path, key, kind.verb)
    check_outside(path, key, sources)
    place = path.resolve()
    was_there = place.exists()
    try:
        with hold_lock(place / LOCK, path, kind.verb, key):
            _check_run(path, place, kind, key)
            if _marked(place) is None:
                _mark(place, kind, kind.names)
            try:
                yield
            finally:
                if set(_entries(place, deep=False)) <= {MARKER, LOCK}:  # it never began
                    (place / MARKER).unlink(missing_ok=True)
    finally:
        if not was_there:
            with suppress(OSError):  # not empty, as it should be
                place.rmdir()


def replace_folder(
    complete: Path, path: Path, remove: Callable[[Path], object] = shutil.rmtree
) -> None:
    """Rename the folder `complete`, already flushed to disk, to its sibling `path`.

    What stood there is set aside as `.NAME.mengya-old` and given to `remove` last: at every moment one of
    the two is complete.
    """
    old = _beside(path, "old")
    if path.exists():
        path.rename(old)
    try:
        complete.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    sync_path(path.parent)
    if old.exists():
        remove(old)


def _check_run(path: Path, place: Path, kind: FolderKind, key: str) -> None:
    marker = _marked(place)
    if marker is not None:
        if marker["verb"] != kind.verb:
            raise UserError(
                f"{path} was made by `mengya {marker['verb']}`; write {typed(key, path)}"
            )
        return
    taken = [name for name in _entries(place, deep=False) if _matches(name, kind.names)]
    if taken and not kind.unmarked(place):
        raise UserError(
            f"{path} holds files of the names that `mengya {kind.verb}` writes, and it did not make them: "
            f"{_some(taken)}. They are not overwritten: move them out, or write {typed(key, path)}"
        )


def _beside(place: Path, what: str) -> Path:
    return place.with_name(f".{place.name}.mengya-{what}")


def _marked(folder: Path) -> dict[str, Any] | None:
    """The marker of a folder; None without one.

    Raises:
        UserError: it is of a later version.
    """
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        version, _, files = marker["format"], str(marker["verb"]), list(map(str, marker["files"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if not isinstance(version, int) or version < 1:
        return None
    check_format(folder / MARKER, version, FORMAT)
    return {**marker, "files": files}


def _mark(folder: Path, kind: FolderKind, files: Sequence[str]) -> None:
    marker = {"format": FORMAT, "verb": kind.verb, "files": sorted(files)}
    write_text(folder / MARKER, json.dumps(marker, ensure_ascii=False, indent=1) + "\n")


def _own_files(folder: Path, kind: FolderKind) -> set[str]:
    """The files below `folder` that the verb wrote; none when it did not make the folder."""
    files = {name for name in _entries(folder) if not (folder / name).is_dir()}
    marker = _marked(folder)
    if marker is not None:
        names = marker["files"] if marker["verb"] == kind.verb else []
        own = files & {*names, *added_later(folder)}
    elif kind.unmarked(folder):
        own = {name for name in files if _matches(name, (*kind.names, *_ADDED_LATER))}
    else:
        own = set()
    return own


def _entries(folder: Path, deep: bool = True) -> list[str]:
    """Relative names of all files, links and empty folders below; links are not followed."""
    found: list[str] = []
    if not folder.is_dir():
        return found
    for path in sorted(folder.iterdir()):
        inner = _entries(path) if deep and path.is_dir() and not path.is_symlink() else []
        found += [f"{path.name}/{name}" for name in inner] or [path.name]
    return found


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """As fnmatch, part by part: `*` does not match a slash."""
    parts = name.split("/")
    return any(
        len(pattern.split("/")) == len(parts) and all(map(fnmatchcase, parts, pattern.split("/")))
        for pattern in patterns
    )


def added_later(folder: Path) -> list[str]:
    """The files of a folder of ours that no marker lists: other verbs put them there."""
    return [name for name in _entries(folder) if _matches(name, _ADDED_LATER)]


def remove_files(folder: Path, own: Iterable[str]) -> bool:
    """Remove these files and the folders that are empty then; whether nothing is left."""
    present = set(_entries(folder))  # so that no name leads out of the folder
    for name in own:
        if name in present:
            (folder / name).unlink()
    for inner, _, _ in os.walk(folder, topdown=False):
        if not os.listdir(inner):  # noqa: PTH208
            Path(inner).rmdir()
    return not folder.exists()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
