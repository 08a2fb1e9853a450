"""The folder of made conversations: whether it is up to date, and its report.

`report.json` is written last. It holds the request (all that decides the conversations), whether it is
complete, and what was kept and dropped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from mengya.data.ingest.reading.files import find_files
from mengya.errors import UserError, shown
from mengya.runtime.files import write_text
from mengya.synthesis.conversation import CONVERSATIONS, REPORT

LEDGER = ".requests.jsonl"
_MAX_LISTED = 10


def is_up_to_date(out: Path, request: dict[str, Any], overwrite: bool, console: Console) -> bool:
    """Whether OUT holds all that the request would make. What is there but incomplete is continued.

    Raises:
        UserError: OUT is complete, of another request, and overwrite is false; or its report is damaged.
    """
    saved = _read(out / REPORT, overwrite)
    if saved is None or not saved["complete"]:
        return False
    if saved["request"] == request and (out / CONVERSATIONS).is_file():
        console.print(
            f"{out} is up to date: same settings and sources; nothing to do", soft_wrap=True
        )
        return True
    if overwrite or saved["request"] == request:
        return False
    changed = "\n".join(f"  - {line}" for line in _differences(saved["request"], request))
    raise UserError(
        f"{out} was made with other settings or sources:\n{changed}\n"
        "write overwrite=true to make it again (paid replies are used again), or choose another out="
    )


def write_report(out: Path, report: dict[str, Any]) -> None:
    write_text(out / REPORT, json.dumps(report, ensure_ascii=False, indent=1) + "\n")


def described_files(patterns: Iterable[str]) -> list[dict[str, str]]:
    """Every file that the patterns name, with its SHA-256."""
    files = list(dict.fromkeys(file for pattern in patterns for file in find_files(pattern)))
    return [{"path": str(path), "sha256": _sha256(path)} for path in files]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path, overwrite: bool) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(saved["complete"], bool) and isinstance(saved["request"], dict):
            return saved
    except (ValueError, KeyError, TypeError):
        pass  # the same as a report without these
    if overwrite:
        return None
    raise UserError(f"{path} is damaged; write overwrite=true to make it again")


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The keys that differ, with both values."""
    keys = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    return [
        f"{key}: {shown(before.get(key))} -> {shown(now.get(key))}" for key in keys[:_MAX_LISTED]
    ]
