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

from mengya.errors import UserError
from mengya.evaluation.record.provenance import Provenance
from mengya.models.adapters.lora import base_folder
from mengya.models.hf.checkpoint import checkpoint_sha256
from mengya.models.hf.open_checkpoint import ADAPTER
from mengya.runtime.files import check_file, write_text
from mengya.runtime.jsonl import json_line
from mengya.version import check_format

FILE, ITEMS = "evaluation.json", "evaluation_items"
FORMAT = 1
_SINGLE = ("text", "by_position", "preference", "passkey")
_BY_NAME = ("exams", "yardsticks")


class EvaluationFile:
    """Figures of one checkpoint on disk; a part is text, preference, ..., exams/NAME or yardsticks/NAME.

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
        self.dropped = [] if self._kept() else sorted(read_evaluation(path).get("measured_by", {}))

    @property
    def journal(self) -> Path:
        """Of exams that are not finished; it is removed when they are."""
        return self.path.with_name(f"{self.path.stem}_unfinished.jsonl")

    def finished(self, part: str, settings: Mapping[str, Any]) -> Any | None:
        """The value of a part that was measured on this checkpoint with these settings; None without."""
        kept = self._kept()
        by = kept.get("measured_by", {}).get(part)
        if by is None or by.get("settings") != json.loads(json.dumps(settings)):
            return None
        return _get(kept, part)

    def keep(
        self,
        part: str,
        value: Any,
        settings: Mapping[str, Any],
        items: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Write a part, and its items first."""
        if self.dropped:
            self._remove_items(self.dropped)
        lines = "".join(map(json_line, items))
        if lines:
            write_text(self._items(part), lines)
        else:
            self._remove_items([part])
        values = self._kept()
        single, _, name = part.partition("/")
        section = {**(values.get(single) or {}), name: value} if name else value
        by = {
            **values.get("measured_by", {}),
            part: {**self._head["provenance"], "settings": settings},
        }
        self._write({**values, single: section, "measured_by": by})

    def _write(self, values: Mapping[str, Any]) -> None:
        empty: dict[str, Any] = {"passkey": []}
        ordered = {
            **self._head,
            **{name: values.get(name, empty.get(name)) for name in _SINGLE},
            **{name: dict(sorted((values.get(name) or {}).items())) for name in _BY_NAME},
            "measured_by": dict(sorted(values.get("measured_by", {}).items())),
        }
        write_text(self.path, json.dumps(ordered, ensure_ascii=False, indent=2) + "\n")

    def _kept(self) -> dict[str, Any]:
        """What is on disk of the same checkpoint."""
        values = read_evaluation(self.path)
        same = values.get("checkpoint_sha256") == self._head["checkpoint_sha256"]
        return values if same and isinstance(values.get("measured_by"), dict) else {}

    def _items(self, part: str) -> Path:
        return items_path(self.path, part)

    def _remove_items(self, parts: Iterable[str]) -> None:
        for part in parts:
            self._items(part).unlink(missing_ok=True)


def read_evaluation(path: Path) -> dict[str, Any]:
    """The values of a file that `mengya evaluate` wrote; {} where there is none.

    Raises:
        UserError: it is something else, damaged, or of a later version.
    """
    check_file(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise _foreign(path, f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise _foreign(path, "no object")
    if isinstance(written := values.get("format", FORMAT), int):
        check_format(path, written, FORMAT)
    if values and "checkpoint" not in values:
        raise _foreign(path, "it has no `checkpoint`")
    for name in (*_BY_NAME, "measured_by"):
        if not isinstance(values.get(name, {}), dict):
            raise _foreign(path, f"`{name}` is no object")
    for part, by in values.get("measured_by", {}).items():
        if not isinstance(by, dict):
            raise _foreign(path, f"`measured_by.{part}` is no object")
    return values


def _foreign(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not what `mengya evaluate` writes ({why}), and is not overwritten: move it elsewhere, or "
        "name another file"
    )


def items_path(evaluation: Path, part: str) -> Path:
    """Where the items of a part lie: evaluation_items/loops.jsonl of yardsticks/loops."""
    kind, _, name = part.partition("/")
    name = name if kind == "yardsticks" else part.replace("/", "-")
    if not re.fullmatch(r"[\w-][\w.-]*", name):  # an exam may be named by its path
        plain = re.sub(r"[^\w.-]+", "_", name).lstrip("._")[-80:]
        name = f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return evaluation.with_name(f"{evaluation.stem}_items") / f"{name}.jsonl"


def subject_sha256(folder: Path) -> str:
    """SHA-256 of all that decides what a checkpoint computes: weights, config.json, tokenizer.

    Of an adapter: its weights and settings, and its base.

    Raises:
        UserError: a file cannot be read.
    """
    if not (folder / ADAPTER).is_file():
        return checkpoint_sha256(folder)
    digest = hashlib.sha256(checkpoint_sha256(folder, weights=False).encode())
    digest.update(checkpoint_sha256(base_folder(folder)).encode())
    try:
        for name in (ADAPTER, "adapter_model.safetensors"):
            digest.update((folder / name).read_bytes())
    except OSError as error:
        raise UserError(f"{folder} is no complete adapter ({error}); copy it again") from error
    return digest.hexdigest()


def _get(values: Mapping[str, Any], part: str) -> Any:
    single, _, name = part.partition("/")
    section = values.get(single)
    return section.get(name) if name and isinstance(section, dict) else section
