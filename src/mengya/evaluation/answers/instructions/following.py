"""The yardstick `instructions`: Chinese instructions whose following code can check, all or nothing.

Format, length, wording and refusal to invent, never whether an answer is good. An answer passes when it meets
every check of its item, and was ended by the model, says something, does not end in a loop and is not a copy
of the instruction: else an empty or endless answer would pass every check of what must not occur.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mengya.evaluation.answers.answer import Answer, answers
from mengya.evaluation.answers.instructions.checks import failed_checks
from mengya.evaluation.answers.questions import fitting, spread
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig, YardstickResult
from mengya.measured.measurement import Measurement
from mengya.runtime.yaml_values import load_yaml
from mengya.text.loops import ending_loop

_FILE = Path(__file__).with_name("instructions.yaml")
_NOTES = {"refusal": "half of them can be answered: refusing everything gives half"}


@dataclass(frozen=True)
class Instruction:
    """checks: by name, what is wanted (checks.py)."""

    kind: str
    id: str
    prompt: str
    checks: dict[str, Any]


@cache
def instruction_items() -> list[Instruction]:
    """All that are shipped, kind by kind."""
    kinds = load_yaml(_FILE.read_text(encoding="utf-8"))
    return [
        Instruction(kind, f"{kind}-{number:02d}", prompt, checks)
        for kind, items in kinds.items()
        for number, (prompt, checks) in enumerate(items, start=1)
    ]


def failures(item: Instruction, answer: Answer) -> list[str]:
    """Why an answer does not pass; empty: it does."""
    general = {
        "ends": answer.finished,
        "says something": any(map(str.isalnum, answer.text)),
        "no loop": ending_loop(answer.text) is None,
        "no copy": item.prompt not in answer.text,
    }
    broken = [name for name, holds in general.items() if not holds]
    return broken + failed_checks(answer.text, item.checks)


def instructions(subject: Subject, config: YardstickConfig) -> YardstickResult:
    """The share of instructions followed, in all and by kind; greedy. Not of base models.

    Raises:
        UserError: the model's context holds none of the prompts.
    """
    if not subject.chat:
        why = "a base model continues a text and follows no instructions"
        name = "instructions"
        return YardstickResult([Measurement.not_applicable(name, "share", "higher", why)])
    asked = list(_spread_by_kind(config.limit))
    kept = [asked[i] for i in fitting(subject, [item.prompt for item in asked])]
    made = answers(
        subject,
        [item.prompt for item in kept],
        temperature=None,
        max_new_tokens=config.max_new_tokens,
        seed=config.seed,
    )
    records: list[dict[str, Any]] = []
    passed: dict[str, list[bool]] = {}
    for item, answer in zip(kept, made, strict=True):
        failed = failures(item, answer)
        passed.setdefault(item.kind, []).append(not failed)
        records.append(
            {
                "part": item.kind,
                "id": item.id,
                "score": int(not failed),
                "failed": failed,
                "prompt": item.prompt,
                "answer": answer.text,
            }
        )
    note = "" if len(kept) == len(asked) else f"{len(asked) - len(kept)} prompts too long"
    measurements = [
        _share("instructions", [mark for marks in passed.values() for mark in marks], note)
    ]
    for kind, marks in passed.items():
        measurements.append(_share(f"instructions/{kind}", marks, _NOTES.get(kind, "")))
    return YardstickResult(measurements, records)


def _spread_by_kind(limit: int | None) -> Iterator[Instruction]:
    kinds: dict[str, list[Instruction]] = {}
    for item in instruction_items():
        kinds.setdefault(item.kind, []).append(item)
    for items in kinds.values():
        yield from spread(items, limit)


def _share(name: str, marks: list[bool], note: str) -> Measurement:
    return Measurement.share(name, sum(marks), len(marks), note=note)
