"""Local multiple-choice files, as tasks of lm-evaluation-harness (lm-eval).

Takes a folder in the layout of CMMLU (dev/SUBJECT.csv, test/SUBJECT.csv; columns Question, A, B, C,
D, Answer) or of C-Eval (dev/SUBJECT_dev.csv, val/SUBJECT_val.csv; question, A, B, C, D, answer).
Writes one task file a subject that includes the harness's own CMMLU or C-Eval task and points it at
the local questions, so prompt, few-shot examples and scoring are the harness's. Knows no model.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from mengya.errors import UserError

LETTERS = "ABCD"


@dataclass(frozen=True)
class Layout:
    """Where the questions are, the names of the columns, and the task of the harness that asks them."""

    split: str
    suffix: str
    question: str
    answer: str
    task_file: str
    description: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.question, *LETTERS, self.answer)


# `split` is the harness's term; its own descriptions, for subjects that it has no task for.
CMMLU = Layout(
    split="test",
    suffix="",
    question="Question",
    answer="Answer",
    task_file="cmmlu/cmmlu_{}.yaml",
    description="以下是关于{}的单项选择题，请直接给出正确答案的选项。\n\n",
)
CEVAL = Layout(
    split="val",
    suffix="_val",
    question="question",
    answer="answer",
    task_file="ceval/ceval-valid_{}.yaml",
    description="以下是中国关于{}的单项选择题，请选出其中的正确答案。\n\n",
)
ANY_SUBJECT = {CMMLU: "agronomy", CEVAL: "accountant"}


@dataclass(frozen=True)
class Exam:
    """The files of an exam: by subject the scored questions, and the examples (dev) where there are any."""

    layout: Layout
    scored: dict[str, Path]
    examples: dict[str, Path]


def find_exam(folder: Path, subjects: list[str] | None = None) -> Exam:
    """The subjects of a folder, all or those named.

    Raises:
        UserError: the folder has no exam, or not the subjects named.
    """
    for layout in (CEVAL, CMMLU):  # C-Eval's archive also has test/, without answers
        files = sorted((folder / layout.split).glob(f"*{layout.suffix}.csv"))
        if not files:
            continue
        scored = {file.stem.removesuffix(layout.suffix): file for file in files}
        if missing := sorted(set(subjects or ()) - set(scored)):
            raise UserError(
                f"{folder} has no subject {', '.join(missing)}; it has {', '.join(scored)}"
            )
        scored = {name: scored[name] for name in subjects or scored}
        dev_suffix = "_dev" if layout.suffix else ""
        dev = {name: folder / "dev" / f"{name}{dev_suffix}.csv" for name in scored}
        return Exam(layout, scored, {n: file for n, file in dev.items() if file.is_file()})
    packed = " Unpack the archive first." if folder.is_file() else ""
    raise UserError(
        f"{folder} holds no exam: neither test/SUBJECT.csv (CMMLU) nor val/SUBJECT_val.csv "
        f"(C-Eval).{packed}"
    )


def read_questions(file: Path, layout: Layout) -> list[dict[str, str]]:
    """The rows of a CSV file, as text.

    Raises:
        UserError: naming the line of the first bad row.
    """
    rows = []
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
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


def write_tasks(
    exam: Exam, folder: Path, harness_tasks: Path, num_fewshot: int = 0
) -> dict[str, str]:
    """Write the task files and their data into `folder`.

    `lm_eval --include_path FOLDER --tasks NAME,...` runs them too. The data are Parquet files of
    strings: from CSV the harness's reader would turn answers such as 1.50 into numbers.

    Args:
        harness_tasks: the folder `tasks` of the installed lm_eval.

    Returns:
        subject -> name of its task.

    Raises:
        UserError: a bad question, or fewer examples than num_fewshot.
    """
    import pyarrow
    import pyarrow.parquet

    layout = exam.layout
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, str] = {}
    for number, (subject, file) in enumerate(exam.scored.items()):
        splits = {layout.split: read_questions(file, layout)}
        if num_fewshot:
            examples = exam.examples.get(subject)
            splits["dev"] = read_questions(examples, layout) if examples else []
            if len(splits["dev"]) < num_fewshot:
                raise UserError(
                    f"num_fewshot={num_fewshot}, but subject {subject} has {len(splits['dev'])} "
                    f"examples in its dev file; write num_fewshot={len(splits['dev'])} or less"
                )
        if not splits[layout.split]:
            raise UserError(f"{file} holds no question")
        name = f"local_{number:02d}_{re.sub(r'[^0-9A-Za-z_]', '_', subject)}"
        files = {}
        for split, rows in splits.items():
            files[split] = str(folder / f"{name}.{split}.parquet")
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), files[split])
        _write_task(layout, subject, name, folder, harness_tasks, num_fewshot, files)
        names[subject] = name
    return names


def _write_task(
    layout: Layout,
    subject: str,
    name: str,
    folder: Path,
    harness_tasks: Path,
    num_fewshot: int,
    files: dict[str, str],
) -> None:
    own = harness_tasks / layout.task_file.format(subject)
    known = own.is_file()
    task = {
        "include": str(
            own if known else harness_tasks / layout.task_file.format(ANY_SUBJECT[layout])
        ),
        "task": name,
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
        "num_fewshot": num_fewshot,
    }
    if not known:
        task["description"] = layout.description.format(subject.replace("_", " "))
    if not num_fewshot:
        task["fewshot_split"] = None
    text = yaml.safe_dump(task, allow_unicode=True, sort_keys=False)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
