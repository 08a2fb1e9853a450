"""JSON lines that mengya itself writes: a line ends in a newline and in nothing else.

U+2028, U+0085 and their like stand in texts, so such a file is never split by `str.splitlines`. A crash
may cut the last line; it is skipped by readers and removed before more is appended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mengya.errors import UserError, shown
from mengya.runtime.unicode import is_unicode

_BLOCK = 1 << 16


def json_line(values: Mapping[str, Any]) -> str:
    """The line of an object, its newline included. Half of a surrogate pair is written as an escape."""
    text = json.dumps(values, ensure_ascii=False)
    return (text if is_unicode(text) else json.dumps(values)) + "\n"


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value), none when there is no file; a last line cut short by a crash is skipped.

    Raises:
        UserError: another line is not JSON.
    """
    if not path.is_file():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            if number < len(lines):
                raise UserError(
                    f"{path}:{number} is not JSON in UTF-8 ({error}); remove that line"
                ) from error
            continue
        if number < len(lines) or isinstance(values, dict):
            yield number, values


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file, as `read_json_lines`.

    Raises:
        UserError: a line is not JSON, or no object.
    """
    for number, values in read_json_lines(path):
        if not isinstance(values, dict):
            raise UserError(f"{path}:{number} is no JSON object; remove that line")
        yield values


def read_steps(path: Path) -> Iterator[dict[str, Any]]:
    """As `read_jsonl`, of a file in which a run writes a `step` in every line.

    Raises:
        UserError: a line is not JSON, or has no step; names it.
    """
    for number, values in enumerate(read_jsonl(path), 1):
        if not isinstance(values.get("step"), int):
            raise UserError(
                f"{path}:{number} has no integer `step`, a run did not write it; remove that line"
            )
        yield values


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """As `read_steps`, of metrics.jsonl, which holds nothing but numbers; NaN and infinity are some.

    Raises:
        UserError: a line is not JSON, has no step, or holds something else; names it.
    """
    for number, values in enumerate(read_steps(path), 1):
        for name, value in values.items():
            if not isinstance(value, int | float):
                raise UserError(
                    f"{path}:{number} has {shown(value)} as `{name}`, which is no number; remove that line"
                )
        yield values


def remove_cut_line(path: Path) -> None:
    """Cut the file after its last newline: what follows it is a line that a crash cut short."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            end = start + found + 1 if found >= 0 else start
            if found >= 0:
                break
        file.truncate(end)
