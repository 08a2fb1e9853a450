"""Local multiple-choice files, as tasks of lm-evaluation-harness (lm-eval).

Takes an exam folder (data/exams/folders.py). Writes one task file a subject that includes the harness's own
CMMLU or C-Eval task and points it at the local questions, so prompt, few-shot examples and scoring are the
harness's. Knows no model.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import yaml

from mengya.data.exams.folders import CEVAL, CMMLU, Exam, Layout, read_questions
from mengya.errors import UserError


class _Task(NamedTuple):
    """The harness's file of a subject, one that it has for sure, and our words where it lacks a subject."""

    file: str
    any_subject: str
    description: str


_TASKS = {
    CMMLU: _Task(
        "cmmlu/cmmlu_{}.yaml",
        "agronomy",
        "以下是关于{}的单项选择题，请直接给出正确答案的选项。\n\n",
    ),
    CEVAL: _Task(
        "ceval/ceval-valid_{}.yaml",
        "accountant",
        "以下是中国关于{}的单项选择题，请选出其中的正确答案。\n\n",
    ),
}


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
    harness = _TASKS[layout]
    own = harness_tasks / harness.file.format(subject)
    known = own.is_file()
    task = {
        "include": str(own if known else harness_tasks / harness.file.format(harness.any_subject)),
        "task": name,
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
        "num_fewshot": num_fewshot,
    }
    if not known:
        task["description"] = harness.description.format(subject.replace("_", " "))
    if not num_fewshot:
        task["fewshot_split"] = None
    text = yaml.safe_dump(task, allow_unicode=True, sort_keys=False)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
