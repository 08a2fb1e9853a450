"""What becomes of samples that nearly equal one that is kept already: dropped, or put into its split.

Samples are decided in their order, each compared with all that are kept before it. What is known of those
lies in files of the build's folder, which are cut back and read again when a build resumes; in memory is only
the index of keys. Knows nothing of shards or processes.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mengya.data.prepare.duplicates.signing import Signing
from mengya.data.prepare.outcome.encoded_chunk import EncodedChunk
from mengya.text.near_duplicates.config import NearDuplicateConfig
from mengya.text.near_duplicates.index import KeyIndex
from mengya.text.near_duplicates.method import keys, near

NEAR_FILES = ("near_duplicates.bin", "near_splits.bin")  # only while a build is unfinished
NEAR_DUPLICATE, NEAR_BOTH_SPLITS = "near_duplicate", "near_both_splits"
TextOf = Callable[[bool, int], str]
"""(validation, number of a sample in that split) -> the beginning of its text."""
PAIRS = 10  # that are shown
_COMPARED = 1 << 15  # pairs of signatures at once
_READ_AGAIN = 1 << 14  # samples at once


class Near(NamedTuple):
    """A kept sample that a new one nearly equals: its number, or ~row when it is of the same chunk."""

    kept: int
    similarity: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A sample that nearly equals a kept one: both places, the beginning of the first, where the other lies.

    Attributes:
        key: hash of the sample; those with the smallest are shown.
        sample: number of the kept one in its split.
    """

    key: int
    similarity: float
    file: str
    line: int
    text: str
    kept_file: str
    kept_line: int
    validation: bool
    sample: int


@dataclass
class Found:
    """What was found so far, as JSON in the state of a build."""

    near: int = 0
    dropped: int = 0
    near_both_splits: int = 0
    moved_to_train: int = 0
    moved_to_validation: int = 0
    pairs: list[Pair] = field(default_factory=list)

    def show(self, pair: Pair) -> None:
        """Keep the pair if its hash is among the smallest."""
        self.pairs = sorted([*self.pairs, pair], key=lambda one: one.key)[:PAIRS]

    @staticmethod
    def of(state: dict[str, Any]) -> Found:
        return Found(**{**state, "pairs": [Pair(**pair) for pair in state["pairs"]]})


class NearDuplicates:
    """Decides on the samples of a build in `directory`, which is cut back to `state` when there is one."""

    def __init__(self, directory: Path, signing: Signing, state: dict[str, Any] | None) -> None:
        self.config = signing.config
        self.found = Found() if state is None else Found.of(state["found"])
        self._files: list[str] = [] if state is None else state["files"]
        self._written: list[int] = [0, 0] if state is None else state["written"]
        count = sum(self._written)
        paths = [directory / name for name in NEAR_FILES]
        self._full = KeptSamples(paths[0], self.config, count) if signing.full else None
        self._split = KeptSamples(paths[1], self.config, count) if signing.split else None

    def decide(
        self, chunk: EncodedChunk, new: np.ndarray, held: np.ndarray, stays: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Decide on the `new` samples (bool [N]) of a chunk, of which `held` are for validation.

        Those that have to stay (bool [N]) are only put into the split of what they are near to, and dropped
        where both splits have some.

        Returns:
            (which are kept, which are for validation, for each reason which are dropped), bool [N].
        """
        new, held = new.copy(), held.copy()
        copies = self._full.near(chunk.signatures, new) if self._full else {}
        siblings = self._split.near(chunk.split_signatures, new) if self._split else {}
        dropped = {r: np.zeros(len(new), bool) for r in (NEAR_DUPLICATE, NEAR_BOTH_SPLITS)}
        pairs: list[tuple[int, Near]] = []
        for row in sorted(copies.keys() | siblings.keys()):
            copied = _left(copies.get(row, []), new)
            if copied and not stays[row]:
                left, reason = copied, NEAR_DUPLICATE
            elif left := _left(siblings.get(row, []), new) or copied:
                reason = self._join(row, left, held)
            else:
                continue
            self.found.near += 1
            pairs.append((row, max(left, key=lambda one: one.similarity)))
            if reason is not None:
                new[row] = False
                dropped[reason][row] = True
        self.found.dropped += int(sum(rows.sum() for rows in dropped.values()))
        self.found.near_both_splits += int(dropped[NEAR_BOTH_SPLITS].sum())
        numbers = self._keep(chunk, new, held)
        for row, kept in pairs:
            self._show(chunk, row, kept, numbers)
        return new, held, dropped

    def commit(self) -> dict[str, Any]:
        """Flush the files; what a resumed build needs."""
        for kept in filter(None, (self._full, self._split)):
            kept.flush()
        found = asdict(self.found)
        return {"found": found, "files": self._files, "written": self._written}

    def close(self) -> None:
        for kept in filter(None, (self._full, self._split)):
            kept.close()

    def facts(self) -> dict[str, Any]:
        """For the manifest: the settings and what was found."""
        found = asdict(self.found)
        del found["pairs"]
        moved = self.found.moved_to_train + self.found.moved_to_validation
        return {**self.config.settings(), **found, "moved": moved}

    def report(self, text_of: TextOf) -> dict[str, Any]:
        """`facts` with pairs to look at: what was found, whether dropped or moved, and what it is near to."""
        pairs = [
            {
                "similarity": round(pair.similarity, 3),
                "dropped": {"file": pair.file, "line": pair.line, "text": pair.text},
                "kept": {
                    "file": pair.kept_file,
                    "line": pair.kept_line,
                    "text": text_of(pair.validation, pair.sample),
                },
            }
            for pair in self.found.pairs
        ]
        return {**self.facts(), "pairs": pairs}

    def _join(self, row: int, left: list[Near], held: np.ndarray) -> str | None:
        """Put a sample into the split of its near-duplicates; the reason to drop it when both have some."""
        kept = self._split or self._full
        assert kept is not None
        splits = {
            bool(held[~one.kept]) if one.kept < 0 else bool(kept.place(one.kept)["validation"])
            for one in left
        }
        if len(splits) > 1:
            return NEAR_BOTH_SPLITS
        (validation,) = splits
        if held[row] != validation:
            held[row] = validation
            self.found.moved_to_validation += validation
            self.found.moved_to_train += not validation
        return None

    def _keep(self, chunk: EncodedChunk, new: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Remember the samples that are kept; the number of each [N], counted over both splits."""
        if not self._files or self._files[-1] != chunk.file:
            self._files.append(chunk.file)
        first = sum(self._written)
        rows = np.flatnonzero(new)
        places = np.zeros(len(rows), PLACE)
        places["file"], places["line"] = len(self._files) - 1, chunk.lines[rows]
        places["validation"] = held[rows]
        for split in (0, 1):
            here = held[rows] == bool(split)
            places["sample"][here] = self._written[split] + np.arange(here.sum())
            self._written[split] += int(here.sum())
        if self._full:
            self._full.add(chunk.signatures[rows], places)
        if self._split:
            self._split.add(chunk.split_signatures[rows], places)
        return first + np.cumsum(new) - 1

    def _show(self, chunk: EncodedChunk, row: int, near: Near, numbers: np.ndarray) -> None:
        """Note the pair of a sample and a kept one, if it is among those to be shown."""
        key = int(chunk.hashes[row])
        if len(self.found.pairs) == PAIRS and key >= self.found.pairs[-1].key:
            return
        kept = self._full or self._split
        assert kept is not None
        place = kept.place(near.kept if near.kept >= 0 else int(numbers[~near.kept]))
        self.found.show(
            Pair(
                key,
                near.similarity,
                chunk.file,
                int(chunk.lines[row]),
                chunk.excerpts[row],
                self._files[int(place["file"])],
                int(place["line"]),
                bool(place["validation"]),
                int(place["sample"]),
            )
        )


PLACE = np.dtype(
    [("file", "<u4"), ("line", "<i8"), ("validation", "?"), ("sample", "<i8")]
)  # of a kept sample: where it was read, and where it is written


class KeptSamples:
    """Signature and place of every kept sample, in a file, and the index of their keys."""

    def __init__(self, path: Path, config: NearDuplicateConfig, count: int) -> None:
        self._config = config
        self._record = np.dtype([("signature", "u1", (config.signature_bytes,)), ("place", PLACE)])
        self._index = KeyIndex()
        with path.open("r+b" if count else "wb") as file:
            file.truncate(count * self._record.itemsize)
        self._file = path.open("r+b", buffering=0)
        for first in range(0, count, _READ_AGAIN):
            records = self._read(np.arange(first, min(first + _READ_AGAIN, count)))
            self._index.add(keys(records["signature"], config))
        self._file.seek(0, os.SEEK_END)

    def near(self, signatures: np.ndarray, new: np.ndarray) -> dict[int, list[Near]]:
        """For the rows of uint8 [N, P] that are `new` (bool [N]): what they nearly equal, in order.

        Rows of the same call count as kept when they are new, which the caller has to check again.
        """
        rows = np.flatnonzero(new)
        signatures = signatures[rows]
        candidates = self._index.candidates(keys(signatures, self._config))
        found: dict[int, list[Near]] = defaultdict(list)
        for pairs, earlier in ((candidates.earlier, True), (candidates.within, False)):
            for at in range(0, len(pairs), _COMPARED):
                some = pairs[at : at + _COMPARED]
                numbers, place = np.unique(some[:, 1], return_inverse=True)
                kept = self._read(numbers)["signature"] if earlier else signatures[numbers]
                similar = near(signatures[some[:, 0]], kept[place], self._config)
                for hit in np.flatnonzero(similar).tolist():
                    row, other = rows[some[hit, 0]], int(some[hit, 1])
                    one = Near(other if earlier else ~int(rows[other]), float(similar[hit]))
                    found[int(row)].append(one)
        return found

    def add(self, signatures: np.ndarray, places: np.ndarray) -> None:
        """Keep samples with signatures uint8 [N, P] and `PLACE` [N]."""
        records = np.zeros(len(places), self._record)
        records["signature"], records["place"] = signatures, places
        data = memoryview(records.tobytes())
        while data:
            data = data[self._file.write(data) :]
        self._index.add(keys(signatures, self._config))

    def place(self, number: int) -> np.ndarray:
        """`PLACE` of a kept sample."""
        return self._read(np.array([number]))["place"][0]

    def flush(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        """Records of sorted numbers. `pread` and no memory map: pages of a map count as memory."""
        size, file = self._record.itemsize, self._file.fileno()
        data = b"".join(os.pread(file, size, number * size) for number in numbers.tolist())
        return np.frombuffer(data, self._record)


def _left(found: list[Near], new: np.ndarray) -> list[Near]:
    """Without samples of the same chunk that turned out not to be kept."""
    return [one for one in found if one.kept >= 0 or new[~one.kept]]
