"""Which exam items a build holds and where: noted chunk by chunk, summed up at its end.

Every hit is a line of `exam_hits.jsonl` until the build is finished; a build that is opened again cuts it
back to the chunks done. Then `contamination.jsonl` has a line for every item that was found, and the
manifest of each split a summary, by which a checkpoint and `mengya evaluate` know what was learned.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mengya.data.exams.items import NamedExam
from mengya.data.prepare.exams.check import ExamCheck
from mengya.data.prepare.outcome.encoded_chunk import EncodedChunk
from mengya.runtime.files import write_text
from mengya.runtime.jsonl import json_line

HITS, CONTAMINATION = "exam_hits.jsonl", "contamination.jsonl"
DROPPED = "dropped"  # in the place of a split
MAX_PLACES = 100  # of one item that are listed
_EXCERPT = 200  # characters of a question


@dataclass
class _Found:
    """Of one item: documents by split, and where the first of them stand."""

    documents: dict[str, int] = field(default_factory=dict)
    places: list[dict[str, Any]] = field(default_factory=list)


class ExamHits:
    """The hits of one build below `directory`; `committed` bytes of them are good, None to start."""

    def __init__(self, directory: Path, check: ExamCheck, committed: int | None) -> None:
        self._path, self._check = directory / HITS, check
        if committed is None:
            self._path.write_bytes(b"")
        else:
            os.truncate(self._path, committed)
        self._file = self._path.open("ab")
        self._found: dict[int, _Found] = {}
        self._documents: dict[tuple[str, str], int] = {}

    def add(self, chunk: EncodedChunk, splits: dict[str, np.ndarray]) -> None:
        """Note the hits of a chunk: in the samples of each split (bool [N]), and in those dropped."""
        for line, item in chunk.dropped_hits:
            self._write(DROPPED, item, chunk.file, line)
        for sample, item in chunk.hits:
            for split, samples in splits.items():
                if samples[sample]:
                    self._write(split, item, chunk.file, int(chunk.lines[sample]))

    def commit(self) -> int:
        """Flush to disk; how many bytes are good."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    def finish(self) -> None:
        """Sum up, and write the items that were found."""
        self.close()
        names = [exam.name for exam in self._check.exams for _ in exam.items]
        seen: set[tuple[str, str, int, str]] = set()
        with self._path.open(encoding="utf-8", newline="\n") as lines:
            for hit in map(json.loads, lines):
                split, item, file, line = (hit[key] for key in ("split", "item", "file", "line"))
                found = self._found.setdefault(item, _Found())
                found.documents[split] = found.documents.get(split, 0) + 1
                if len(found.places) < MAX_PLACES:
                    found.places.append({"file": file, "line": line})
                if (place := (split, file, line, names[item])) not in seen:
                    seen.add(place)
                    key = split, names[item]
                    self._documents[key] = self._documents.get(key, 0) + 1
        text = "".join(json_line(line) for line in self._lines())
        write_text(self._path.with_name(CONTAMINATION), text)

    def report(self) -> dict[str, Any]:
        """For the data report, over all splits: items and documents by exam."""
        exams = [
            {
                "name": exam.name,
                "items": len(exam.items),
                "contaminated": sum(number in self._found for number, _ in numbered),
                "documents": sum(
                    n for (_, name), n in self._documents.items() if name == exam.name
                ),
            }
            for exam, numbered in self._numbered()
        ]
        config = self._check.config
        return {"ngram": config.ngram, "action": config.action, "exams": exams}

    def facts(self, split: str) -> dict[str, Any]:
        """For the manifest of a split: what was looked for, and what of it the split holds.

        `keys` are those of the items that it holds, `unchecked_keys` of those that are too short to be
        looked for (text/contamination/items.py has what a key is); `parts` are the subjects or files.
        """
        config = self._check.config
        exams = [self._facts(exam, numbered, split) for exam, numbered in self._numbered()]
        settings = {"ngram": config.ngram, "share": config.share, "action": config.action}
        return {**settings, "exams": exams}

    def _facts(
        self, exam: NamedExam, numbered: list[tuple[int, str]], split: str
    ) -> dict[str, Any]:
        left = [
            key for n, key in numbered if n in self._found and split in self._found[n].documents
        ]
        gone = [
            key for n, key in numbered if n in self._found and DROPPED in self._found[n].documents
        ]
        unchecked = [key for n, key in numbered if n in self._check.items.index.unchecked]
        return {
            "name": exam.name,
            "items": len(numbered),
            "contaminated": len(left),
            "documents": self._documents.get((split, exam.name), 0),
            "dropped_items": len(gone),
            "dropped_documents": self._documents.get((DROPPED, exam.name), 0),
            "parts": [{"name": part.name, "digest": part.digest} for part in exam.parts],
            "keys": sorted(set(left)),
            "unchecked_keys": sorted(set(unchecked)),
        }

    def _numbered(self) -> Iterator[tuple[NamedExam, list[tuple[int, str]]]]:
        """Every exam with (number, key) of its items."""
        number = 0
        for exam in self._check.exams:
            keys = [key for part in exam.parts for key in part.keys]
            yield exam, list(enumerate(keys, number))
            number += len(keys)

    def _lines(self) -> Iterator[dict[str, Any]]:
        number = 0
        for exam in self._check.exams:
            for part in exam.parts:
                for row, item in enumerate(part.items, 1):
                    if (found := self._found.get(number)) is not None:
                        yield {
                            "exam": exam.name,
                            "part": part.name,
                            "item": row,
                            "question": item.question[:_EXCERPT],
                            "documents": sum(found.documents.values()),
                            "places": found.places,
                        }
                    number += 1

    def _write(self, split: str, item: int, file: str, line: int) -> None:
        hit = {"split": split, "item": item, "file": file, "line": line}
        self._file.write(json_line(hit).encode())
