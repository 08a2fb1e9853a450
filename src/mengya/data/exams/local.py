"""A local exam, folder or file, -> the benchmark that it is, and its rows by subject.

Takes CSV folders (folders.py) and files of records (records.py). Of a folder of records the test split is
asked, else validation or dev; what is left of train, dev and validation gives solved examples.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mengya.data.exams.config import ExamSource
from mengya.data.exams.folders import (
    CEVAL,
    CMMLU,
    LETTERS,
    MMLU,
    Layout,
    check_subjects,
    find_exam,
    find_layout,
    read_questions,
)
from mengya.data.exams.items import ExamPart, exam_files, exam_parts, read_exams
from mengya.data.exams.records import LAYOUTS, read_records_of, read_rows
from mengya.errors import UserError

_BENCHMARKS: Mapping[Layout, str] = {CMMLU: "cmmlu", CEVAL: "ceval", MMLU: "mmlu"}
_SPLIT = re.compile(r"^(?:(.*)[-_.])?(train|dev|val|valid|validation|test)$", re.IGNORECASE)
_SCORED = ("test", "val", "valid", "validation", "dev", "", "train")  # the first that is there
_EXAMPLES = ("train", "dev", "val", "valid", "validation")


@dataclass(frozen=True)
class LocalSubject:
    """Attributes:
    rows: the questions to ask.
    examples: solved ones from another split; [] where there is none.
    part: by which prepare's contamination check knows them; None: the check cannot read them.
    """

    rows: list[dict[str, Any]]
    examples: list[dict[str, Any]]
    part: ExamPart | None


@dataclass(frozen=True)
class LocalExam:
    """Attributes:
    benchmark: its name in evaluation/exams/benchmarks.py.
    left_out: in words, what of the files is not asked; "" where all is.
    """

    benchmark: str
    subjects: dict[str, LocalSubject]
    left_out: str = ""


def read_local_exam(path: Path, subjects: list[str] | None = None) -> LocalExam:
    """
    Raises:
        UserError: no such path, no benchmark that is known, a bad row, not the subjects named.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: name a folder or a file of an exam")
    if path.is_dir() and (found := find_layout(path)) is not None:
        return _read_folder(path, found[0], subjects)
    return _read_files(path, subjects)


def _read_folder(path: Path, layout: Layout, subjects: list[str] | None) -> LocalExam:
    exam = find_exam(path, subjects)
    parts = {part.name: part for part in exam_parts(exam)}

    def rows(file: Path | None) -> list[dict[str, Any]]:
        questions: list[dict[str, Any]] = [*(read_questions(file, layout) if file else ())]
        return [_mmlu_row(row) for row in questions] if layout is MMLU else questions

    read = {
        name: LocalSubject(rows(file), rows(exam.examples.get(name)), parts[name])
        for name, file in exam.scored.items()
    }
    if empty := next((name for name, each in read.items() if not each.rows), None):
        raise UserError(f"{exam.scored[empty]} holds no question")
    return LocalExam(_BENCHMARKS[layout], read)


def _mmlu_row(row: Mapping[str, str]) -> dict[str, Any]:
    choices = [row[letter] for letter in LETTERS]
    return {**row, "choices": choices, "answer": LETTERS.index(row["answer"])}


@dataclass
class _Splits:
    """Files of one subject by their split, "" where the name says none."""

    files: dict[str, Path] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def _read_files(path: Path, subjects: list[str] | None) -> LocalExam:
    by_subject: dict[str, _Splits] = {}
    benchmark, unknown, records = "", [], 0
    for file in exam_files(ExamSource(path=str(path))):
        layout, values = read_records_of(file)
        if layout is None:
            unknown.append(file)
            continue
        if benchmark not in ("", layout.benchmark):
            raise UserError(
                f"{path} holds files of {benchmark} and of {layout.benchmark} ({file.name}): name each "
                "file or a folder of one of them"
            )
        benchmark = layout.benchmark
        rows = read_rows(file, layout, values)
        records += _questions(values)
        if rows:
            subject, split = _subject_and_split(file)
            splits = by_subject.setdefault(subject, _Splits())
            splits.files[split], splits.rows[split] = file, rows
        else:
            unknown.append(file)
    if not by_subject:
        raise UserError(_unknown(path))
    check_subjects(path, subjects, list(by_subject))
    names = subjects or list(by_subject)
    asked = sum(len(rows) for each in by_subject.values() for rows in each.rows.values())
    return LocalExam(
        benchmark,
        {name: _subject(by_subject[name]) for name in names},
        _left_out(unknown, records - asked if benchmark == "gaokao_bench" else 0),
    )


def _subject(splits: _Splits) -> LocalSubject:
    scored = next(split for split in _SCORED if split in splits.rows)
    examples = next((s for s in _EXAMPLES if s in splits.rows and s != scored), None)
    try:
        (exam,) = read_exams([ExamSource(path=str(splits.files[scored]))])
        part = exam.parts[0]
    except UserError:  # no field that the check takes for a question
        part = None
    return LocalSubject(splits.rows[scored], splits.rows[examples] if examples else [], part)


def _subject_and_split(file: Path) -> tuple[str, str]:
    stem = file.name.split(".json")[0].split(".parquet")[0].split(".csv")[0]
    matched = _SPLIT.match(stem)
    if matched is None:
        return stem, ""
    return matched[1] or stem, matched[2].lower()


def _questions(values: list[Any]) -> int:
    """Questions of GAOKAO-Bench's files; of others each record is one or more, and all are asked."""
    return sum(len(v["example"]) if isinstance(v, dict) and "example" in v else 0 for v in values)


def _left_out(unknown: list[Path], questions: int) -> str:
    words = []
    if questions:
        words.append(f"{questions:,} questions whose answer is not one letter")
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        words.append(f"files without questions of this kind ({unknown[0].name}{more})")
    return "not asked: " + "; ".join(words) if words else ""


def _unknown(path: Path) -> str:
    kinds = "; ".join(f"{each.benchmark} ({', '.join(sorted(each.fields))})" for each in LAYOUTS)
    return (
        f"{path} holds no exam that is known: neither test/SUBJECT.csv (CMMLU, MMLU) nor "
        f"val/SUBJECT_val.csv (C-Eval), nor records with the fields of {kinds}"
    )
