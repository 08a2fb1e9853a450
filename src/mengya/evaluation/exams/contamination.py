"""The result of an exam without the questions that a model has seen, by the record next to its weights.

Takes the record (data/training_record.py), the parts of an exam and which question was answered right; gives
the share of right answers with and without the contaminated ones. Says so when nobody looked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mengya.data.training_record import TrainedOn
from mengya.evaluation.score import Score, score_of

NO_CHECK = "no contamination check on record: give contamination.exams to prepare"


class Answer(NamedTuple):
    """One question that was asked: the digest of its part ("" where the check cannot know it), its key, and
    its score, 1 for right and 0 for wrong."""

    part: str
    key: str
    score: float


@dataclass(frozen=True)
class ExamContamination:
    """What is known of the questions that were asked.

    Attributes:
        checked: questions that were looked for in all data that the model learned from.
        contaminated: of those, how many were found.
        too_short: of those, how many could not be looked for.
        clean: the score without the contaminated ones; None when nothing was checked or nothing is left.
        note: the same in words.
    """

    checked: int
    contaminated: int
    too_short: int
    clean: Score | None
    note: str


def without_contaminated(
    record: Sequence[TrainedOn] | None, answers: Sequence[Answer]
) -> ExamContamination:
    """Leave out what any of the data holds."""
    checks = [_Check.of(entry.contamination) for entry in record or ()]
    checked = [a for a in answers if checks and all(a.part in check.parts for check in checks)]
    if not checked:
        return ExamContamination(0, 0, 0, None, _known_anyway(checks, answers) + _why_not(record))
    found = {key for check in checks for key in check.keys}
    short = {key for check in checks for key in check.unchecked_keys} - found
    clean = [a for a in checked if a.key not in found]
    contaminated, too_short = len(checked) - len(clean), sum(a.key in short for a in checked)
    score = score_of([a.score for a in clean]) if clean else None
    note = f"{contaminated:,} of {len(checked):,} questions are in the training data"
    if too_short:
        note += f"; {too_short:,} too short to look for"
    if len(checked) < len(answers):
        note += f"; {len(answers) - len(checked):,} others were not looked for in all of it"
    return ExamContamination(len(checked), contaminated, too_short, score, note)


class _Check(NamedTuple):
    parts: frozenset[str]
    keys: frozenset[str]
    unchecked_keys: frozenset[str]

    @staticmethod
    def of(contamination: dict[str, Any] | None) -> _Check:
        exams = (contamination or {}).get("exams", [])
        return _Check(
            frozenset(part["digest"] for exam in exams for part in exam["parts"]),
            frozenset(key for exam in exams for key in exam["keys"]),
            frozenset(key for exam in exams for key in exam["unchecked_keys"]),
        )


def _known_anyway(checks: Sequence[_Check], answers: Sequence[Answer]) -> str:
    """What the data that were checked hold, when others were not."""
    keys = {key for check in checks for key in check.keys}
    found = sum(answer.key in keys for answer in answers)
    if not found:
        return ""
    return f"at least {found:,} of {len(answers):,} questions are in the training data; "


def _why_not(record: Sequence[TrainedOn] | None) -> str:
    """Nothing is on record, or not of all the data, or of other exams."""
    checked = [entry for entry in record or () if entry.contamination is not None]
    if not record or not checked:
        return NO_CHECK
    without = [entry.shards or "those of the start" for entry in record if entry not in checked]
    if without:
        return f"no contamination check on record for the data {', '.join(without)}: {_REMEDY}"
    return f"the training data were not checked for this exam: {_REMEDY}"


_REMEDY = "give contamination.exams to prepare"
