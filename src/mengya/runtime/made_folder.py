"""A folder that a verb makes from a request: whether it is up to date, and its report.

The report is a JSON file, written last. It holds the request (all that decides what is made), whether it is
complete, and what the verb says of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mengya.errors import UserError, shown
from mengya.runtime.files import write_text
from mengya.runtime.folder_lock import say

_MAX_LISTED = 10


def is_up_to_date(report: Path, made: Path, request: dict[str, Any], overwrite: bool) -> bool:
    """Whether the folder holds all that the request would make. What is incomplete is continued.

    Args:
        report, made: files in the folder.

    Raises:
        UserError: it is complete, of another request, and overwrite is false; or its report is damaged.
    """
    saved, folder = _read(report, overwrite), report.parent
    if saved is None or not saved["complete"]:
        return False
    if saved["request"] == request and made.is_file():
        say(f"{folder} is up to date: same settings and sources; nothing to do")
        return True
    if overwrite or saved["request"] == request:
        return False
    changed = "\n".join(f"  - {line}" for line in _differences(saved["request"], request))
    raise UserError(
        f"{folder} was made with other settings or sources:\n{changed}\n"
        "write overwrite=true to make it again (paid replies are used again), or choose another out="
    )


def write_report(path: Path, report: dict[str, Any]) -> None:
    write_text(path, json.dumps(report, ensure_ascii=False, indent=1) + "\n")


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
