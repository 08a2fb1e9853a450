"""The report of finished shards whose sources lie elsewhere now, or are called otherwise: with new names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mengya.data.prepare.report.write import JSON
from mengya.runtime.files import write_text
from mengya.runtime.jsonl import json_line


def renamed_facts(
    folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The values of data_report.json with the names of `now` in place of those of `before`; None without it.

    Args:
        before, now: requests of equal content (request/inputs.py).
    """
    try:
        facts = json.loads((folder / JSON).read_text(encoding="utf-8"))
        names = {a["name"]: b["name"] for a, b in _sources(before, now)}
        for entry, stored, (_, source) in zip(
            facts["sources"], facts["licenses"], _sources(before, now), strict=True
        ):
            entry["name"] = stored["source"] = source["name"]
            stored["license"] = source["license"]
        for entry in facts.get("placeholders", []):
            entry["source"] = names.get(entry["source"], entry["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # of another version, or somebody's own: it stays as it is
    return _with_paths(facts, _paths(before, now))


def rename_lines(file: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Put the new places of files into JSON lines, such as those of bad_lines.jsonl, where there are some."""
    if not file.is_file():
        return
    paths = _paths(before, now)
    lines = map(json.loads, file.read_text(encoding="utf-8").split("\n")[:-1])
    write_text(file, "".join(json_line(_with_paths(line, paths)) for line in lines))


def _sources(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    return zip(before["sources"], now["sources"], strict=True)


def _paths(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    return {
        old["path"]: new["path"]
        for a, b in _sources(before, now)
        for old, new in zip(a["files"], b["files"], strict=True)
    }


def _with_paths(value: Any, paths: Mapping[str, str]) -> Any:
    """A value of JSON in which every `file` and `path` is the new one."""
    if isinstance(value, list):
        return [_with_paths(one, paths) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: paths.get(one, one)
        if key in ("file", "path") and isinstance(one, str)
        else _with_paths(one, paths)
        for key, one in value.items()
    }
