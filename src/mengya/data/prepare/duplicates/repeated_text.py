"""Passages that stand in more than one document: found in a first pass, removed in the second.

Which document keeps a passage is noted by the hash of that document and not by its place, so the second pass
needs no order: any process can remove the passages of any document. A document that keeps one for others must
reach the output, or the passage would be nowhere in it. The first pass sorts the hashes in files by their
first bits, so its memory does not depend on the size of the text. Texts only.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mengya.text.duplicates import squeeze, text_hash
from mengya.text.repeated_text.config import RepeatedTextConfig
from mengya.text.repeated_text.passages import passages, without

REPEATED_TEXT = "repeated_text"  # the edit, and the reason to drop what loses too much
TABLE, SORTED = "repeated_text.npy", "repeated_text.parts"  # of an unfinished build
_PARTS = 6  # bits of a hash that name its file
_PASSAGE = np.dtype([("hash", "<u8"), ("document", "<u8")])


@dataclass(frozen=True, slots=True)
class RepeatedTextPlan:
    """What a process does: collect the passages of its documents, or remove those of `table`.

    That is a file, or `_PASSAGE` [R] itself for processes of other machines.
    """

    config: RepeatedTextConfig
    table: Path | np.ndarray | None = None


class Removal(NamedTuple):
    """A text without what an earlier document has, None when too little is left to keep it for its own sake.

    Attributes:
        keeps: whether other documents lose a passage that stays here.
    """

    text: str | None
    keeps: bool


class RepeatedText:
    """Of one process."""

    def __init__(self, plan: RepeatedTextPlan) -> None:
        self.config = plan.config
        table = plan.table
        self.table: np.ndarray | None = (
            np.load(table, mmap_mode="r") if isinstance(table, Path) else table
        )

    def collect(self, texts: Iterable[str]) -> np.ndarray:
        """`_PASSAGE` [S], the passages of documents, in their order."""
        parts = [np.zeros(0, _PASSAGE)]
        for text in texts:
            hashes = passages(text, self.config).hashes
            part = np.zeros(len(hashes), _PASSAGE)
            part["hash"], part["document"] = hashes, _document(text)
            parts.append(part)
        return np.concatenate(parts)

    def remove(self, text: str) -> Removal:
        """The text without passages that an earlier document has."""
        assert self.table is not None
        found = passages(text, self.config)
        if not len(self.table):
            return Removal(text, keeps=False)
        at = np.searchsorted(self.table["hash"], found.hashes)
        entries = self.table[np.minimum(at, len(self.table) - 1)]
        shared = entries["hash"] == found.hashes
        repeated = shared & (entries["document"] != _document(text))
        keeps = bool((shared & ~repeated).any())
        if not repeated.any():
            return Removal(text, keeps)
        left = without(text, found, repeated)
        enough = len(left) >= (1 - self.config.max_removed) * len(text)
        return Removal(left if keeps or enough else None, keeps)


class RepeatedPassages:
    """Collects the passages of all documents, in order, and writes the table of those that repeat."""

    def __init__(self, directory: Path) -> None:
        self._table, self._folder = directory / TABLE, directory / SORTED
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        self._parts = [(self._folder / f"{part:02d}").open("wb") for part in range(1 << _PARTS)]

    def add(self, found: np.ndarray) -> None:
        """The passages of some documents, `_PASSAGE` [S]."""
        part = (found["hash"] >> np.uint64(64 - _PARTS)).astype(np.int64)
        order = np.argsort(part, kind="stable")
        cuts = np.searchsorted(part[order], np.arange(1 << _PARTS))
        for file, some in zip(self._parts, np.split(found[order], cuts[1:]), strict=True):
            file.write(some.tobytes())

    def finish(self) -> Path:
        """Write the table; its path."""
        for file in self._parts:
            file.close()
        tables = [_repeated(np.fromfile(file.name, _PASSAGE)) for file in self._parts]
        unfinished = self._folder / TABLE
        np.save(unfinished, np.concatenate(tables))
        unfinished.replace(self._table)
        shutil.rmtree(self._folder)
        return self._table


def _repeated(found: np.ndarray) -> np.ndarray:
    """Of passages in the order of their documents: those of more than one, with the first of these."""
    found = found[np.argsort(found["hash"], kind="stable")]
    hashes = found["hash"]
    starts = np.flatnonzero(np.diff(hashes, prepend=~hashes[:1]))
    first = np.repeat(found["document"][starts], np.diff(starts, append=len(found)))
    others = np.add.reduceat(found["document"] != first, starts) if len(starts) else starts
    return found[starts[others > 0]]


def _document(text: str) -> int:
    """Equal for exact duplicates, of which both keep their passages: they are dropped as such."""
    return text_hash(squeeze(text))
