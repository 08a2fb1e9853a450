"""RUN/quarantine.jsonl: the documents of the batches that training skipped, for a person to look at.

One line a document, with the step (as metrics.jsonl counts: from 1) and why. A step that is noted again
(a run that was killed before the next checkpoint finds the same bad steps again) replaces its lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mengya.runtime.files import write_text
from mengya.runtime.jsonl import json_line, read_steps

FILE = "quarantine.jsonl"


def note(
    run_dir: Path,
    steps: Sequence[int],
    reason: str,
    documents: Callable[[int], Iterable[Mapping[str, Any]]],
) -> Path:
    """Write the documents of `steps` (positions, from 0) and return the file.

    Args:
        documents: gives those of one step; where it gives none, the step alone is noted.
    """
    path = run_dir / FILE
    lines = [line for line in read_steps(path) if line["step"] - 1 not in steps]
    for step in steps:
        lines += [
            {"step": step + 1, "reason": reason, **of} for of in list(documents(step)) or [{}]
        ]
    lines.sort(key=lambda line: line["step"])
    write_text(path, "".join(map(json_line, lines)))
    return path
