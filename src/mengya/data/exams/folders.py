"""Folders of multiple-choice questions, in the layout of CMMLU, of C-Eval or of MMLU.

CMMLU: dev/SUBJECT.csv, test/SUBJECT.csv; columns Question, A, B, C, D, Answer. C-Eval: dev/SUBJECT_dev.csv,
val/SUBJECT_val.csv; question, A, B, C, D, answer. MMLU: dev/SUBJECT_dev.csv, test/SUBJECT_test.csv, also
below data/; the same columns without a header. What is asked of them, and of whom, is not known here.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from mengya.errors import UserError

LETTERS = "ABCD"


@dataclass(frozen=True)
class Layout:
    """Where the questions are, and the names of the columns; `split` is the harness's term.

    Attributes:
        header: whether the first line names the columns; else they come in the order of `columns`.
    """

    split: str
    suffix: str
    question: str
    answer: str
    header: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.question, *LETTERS, self.answer)


CMMLU = Layout(split="test", suffix="", question="Question", answer="Answer")
CEVAL = Layout(split="val", suffix="_val", question="question", answer="answer")
MMLU = Layout(split="test", suffix="_test", question="question", answer="answer", header=False)


@dataclass(frozen=True)
class Exam:
    """The files of an exam: by subject the scored questions, and the examples (dev) where there are any."""

    layout: Layout
    scored: dict[str, Path]
    examples: dict[str, Path]


def find_layout(folder: Path) -> tuple[Layout, Path] | None:
    """The layout of a folder, and where its splits are: there or in `data`; None: it has none.

    MMLU's archive has val/ as C-Eval's has, and C-Eval's has test/ (without answers): C-Eval's alone names
    its columns.
    """
    for root in (folder, folder / "data"):
        if files := _files(root, CEVAL):
            return (CEVAL if _names_columns(files[0]) else MMLU), root
        if files := _files(root, MMLU):
            return (CMMLU if _names_columns(files[0]) else MMLU), root
        if _files(root, CMMLU):
            return CMMLU, root
    return None


def _files(root: Path, layout: Layout) -> list[Path]:
    return sorted((root / layout.split).glob(f"*{layout.suffix}.csv"))


def _names_columns(file: Path) -> bool:
    with file.open("rb") as stream:
        first = stream.readline().decode("utf-8", "replace")
    return {"question", "a", "b"} <= {
        name.strip("\ufeff \r\n").lower() for name in first.split(",")
    }


def find_exam(folder: Path, subjects: list[str] | None = None) -> Exam:
    """The subjects of a folder, all or those named.

    Raises:
        UserError: the folder has no exam, or not the subjects named.
    """
    found = find_layout(folder)
    if found is None:
        packed = " Unpack the archive first." if folder.is_file() else ""
        raise UserError(
            f"{folder} holds no exam: neither test/SUBJECT.csv (CMMLU) nor val/SUBJECT_val.csv "
            f"(C-Eval).{packed}"
        )
    layout, root = found
    scored = {file.stem.removesuffix(layout.suffix): file for file in _files(root, layout)}
    check_subjects(folder, subjects, list(scored))
    scored = {name: scored[name] for name in subjects or scored}
    dev_suffix = "_dev" if layout.suffix else ""
    dev = {name: root / "dev" / f"{name}{dev_suffix}.csv" for name in scored}
    return Exam(layout, scored, {n: file for n, file in dev.items() if file.is_file()})


def check_subjects(where: object, wanted: list[str] | None, known: list[str]) -> None:
    """
    Raises:
        UserError: a wanted subject is not known.
    """
    if missing := sorted(set(wanted or ()) - set(known)):
        raise UserError(f"{where} has no subject {', '.join(missing)}; it has {', '.join(known)}")


def read_questions(file: Path, layout: Layout) -> list[dict[str, str]]:
    """The rows of a CSV file, as text.

    Raises:
        UserError: naming the line of the first bad row.
    """
    rows = []
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            names = None if layout.header else layout.columns
            reader = csv.DictReader(stream, names, strict=True)
            if missing := [c for c in layout.columns if c not in (reader.fieldnames or ())]:
                raise UserError(
                    f"{file}: no column {', '.join(missing)}; its header must name "
                    f"{', '.join(layout.columns)}"
                )
            for row in reader:
                values = {column: row[column] for column in layout.columns}
                _check(values, layout, f"{file} line {reader.line_num}")
                values[layout.answer] = values[layout.answer].strip().upper()
                rows.append(values)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} is not CSV in UTF-8: {error}") from error
    return rows


def _check(row: dict[str, str | None], layout: Layout, where: str) -> None:
    empty = [column for column, value in row.items() if not (value or "").strip()]
    if empty == [layout.answer]:
        raise UserError(f"{where}: the answer is empty; score a split whose answers are public")
    if empty:
        raise UserError(f"{where}: {', '.join(empty)} is empty")
    answer = (row[layout.answer] or "").strip().upper()
    if answer not in list(LETTERS):
        raise UserError(f"{where}: answer {answer!r} is none of A, B, C, D")
