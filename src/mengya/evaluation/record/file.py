"""evaluation.json of a checkpoint and the items next to it: figures of several commands, kept together.

    CKPT/evaluation.json             every figure, and of each the command, the settings and the machine
    CKPT/evaluation_items/NAME.jsonl one record an item of a yardstick, for paired comparisons

A command adds its figures to those of earlier ones as long as the checkpoint is the same, byte by byte;
figures of other weights are dropped. Each is written as soon as it is measured, so that a crash loses one at
most. The same command writes the same bytes again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mengya.evaluation.record.provenance import Provenance
from mengya.measured.evaluation import FORMAT, is_current, read_evaluation
from mengya.runtime.files import write_text
from mengya.runtime.jsonl import json_line

_SINGLE = ("text", "by_position", "preference", "passkey")
_BY_NAME = ("exams", "yardsticks")


class EvaluationFile:
    """Figures of one checkpoint on disk; a part is text, preference, ..., exams/NAME or yardsticks/NAME.

    What is on disk is read once: the caller keeps other writers out (`open_file` holds a lock).

    Args:
        path: the file; its items lie in a folder next to it.
        sha256: `subject_sha256` of the checkpoint.
        provenance: of the figures that are about to be added.
        config: the settings of the command.

    Attributes:
        dropped: parts of an earlier checkpoint, which are not kept.

    Raises:
        UserError: what is at `path` did not come from `mengya evaluate`, or from a later version of it.
    """

    def __init__(
        self,
        path: Path,
        checkpoint: str,
        sha256: str,
        provenance: Provenance,
        config: Mapping[str, Any],
    ) -> None:
        self.path = path
        self._head = {
            "format": FORMAT,
            "checkpoint": checkpoint,
            "checkpoint_sha256": sha256,
            "provenance": asdict(provenance),
            "config": dict(config),
        }
        found = read_evaluation(path)
        measured_by = found.get("measured_by", {})
        self._values = found if measured_by and is_current(found, sha256) else {}
        self.dropped = [] if self._values else sorted(measured_by)
        self._stale = self.dropped  # their items are still on disk

    @property
    def journal(self) -> Path:
        """Of exams that are not finished; it is removed when they are."""
        return self.path.with_name(f"{self.path.stem}_unfinished.jsonl")

    def finished(self, part: str, settings: Mapping[str, Any]) -> Any | None:
        """The value of a part that was measured on this checkpoint with these settings; None without."""
        by = self._values.get("measured_by", {}).get(part)
        if by is None or by.get("settings") != json.loads(json.dumps(settings)):
            return None
        return _get(self._values, part)

    def keep(
        self,
        part: str,
        value: Any,
        settings: Mapping[str, Any],
        items: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Write a part, and its items first."""
        self._remove_items(self._stale)
        self._stale = []
        lines = "".join(map(json_line, items))
        if lines:
            write_text(self._items(part), lines)
        else:
            self._remove_items([part])
        single, _, name = part.partition("/")
        section = {**(self._values.get(single) or {}), name: value} if name else value
        by = {
            **self._values.get("measured_by", {}),
            part: {**self._head["provenance"], "settings": settings},
        }
        self._values = {**self._values, single: section, "measured_by": by}
        self._write()

    def _write(self) -> None:
        values = self._values
        empty: dict[str, Any] = {"passkey": []}
        ordered = {
            **self._head,
            **{name: values.get(name, empty.get(name)) for name in _SINGLE},
            **{name: dict(sorted((values.get(name) or {}).items())) for name in _BY_NAME},
            "measured_by": dict(sorted(values.get("measured_by", {}).items())),
        }
        write_text(self.path, json.dumps(ordered, ensure_ascii=False, indent=2) + "\n")

    def _items(self, part: str) -> Path:
        return items_path(self.path, part)

    def _remove_items(self, parts: Iterable[str]) -> None:
        for part in parts:
            self._items(part).unlink(missing_ok=True)


def items_path(evaluation: Path, part: str) -> Path:
    """Where the items of a part lie: evaluation_items/loops.jsonl of yardsticks/loops."""
    kind, _, name = part.partition("/")
    name = name if kind == "yardsticks" else part.replace("/", "-")
    if not re.fullmatch(r"[\w-][\w.-]*", name):  # an exam may be named by its path
        plain = re.sub(r"[^\w.-]+", "_", name).lstrip("._")[-80:]
        name = f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return evaluation.with_name(f"{evaluation.stem}_items") / f"{name}.jsonl"


def _get(values: Mapping[str, Any], part: str) -> Any:
    single, _, name = part.partition("/")
    section = values.get(single)
    return section.get(name) if name and isinstance(section, dict) else section
