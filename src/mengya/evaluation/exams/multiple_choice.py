"""Multiple-choice accuracy on local files, by lm-evaluation-harness (extra `eval`).

Takes a checkpoint folder and an exam folder (exam.py); gives accuracy per subject and overall with
Wilson's 95 % interval, next to the 25 % of chance. Needs no network and leaves no cache behind.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mengya.data.exams.folders import Layout, find_exam
from mengya.data.exams.items import exam_parts, item_of
from mengya.data.training_record import read_training_record
from mengya.errors import UserError
from mengya.evaluation.exams.contamination import (
    ExamContamination,
    answers_of,
    without_contaminated,
)
from mengya.evaluation.exams.tasks import write_tasks
from mengya.evaluation.score import Score
from mengya.runtime.optional import require
from mengya.text.contamination.items import item_keys

CHANCE = 0.25


@dataclass(frozen=True)
class MultipleChoice:
    """overall counts every question once, macro_accuracy every subject once.

    cut_prompts: questions whose prompt was longer than the model's context and was truncated on the left.
    contamination: the score without questions that the training data hold.
    """

    overall: Score
    macro_accuracy: float
    subjects: dict[str, Score]
    chance: float
    num_fewshot: int
    chat_template: bool
    cut_prompts: int
    contamination: ExamContamination


def multiple_choice(
    checkpoint: Path,
    exam_folder: Path,
    *,
    num_fewshot: int = 0,
    chat_template: bool = False,
    subjects: list[str] | None = None,
    limit: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 32,
    show_progress: bool = False,
) -> MultipleChoice:
    """Score `checkpoint` on every question: its answer is the likeliest of A, B, C, D after the prompt.

    Args:
        num_fewshot: solved examples before each question, the first ones of the dev file.
        chat_template: ask as a user turn and score the reply; False continues plain text.
        subjects: only these; None: all.
        limit: only the first `limit` questions of each subject.
        show_progress: show the harness's own progress bars and notes; its errors are always shown.

    Raises:
        UserError: lm-eval is not installed, or the exam or checkpoint folder is not valid.
    """
    exam = find_exam(Path(exam_folder), subjects)
    if not (Path(checkpoint) / "config.json").is_file():
        raise UserError(f"{checkpoint} is not a checkpoint folder: it has no config.json")
    _go_offline()
    with _quiet(show_progress), _temporary_folder() as folder:
        harness = require("lm_eval", "eval")
        tasks = Path(cast(str, harness.__file__)).parent / "tasks"
        names = write_tasks(exam, folder, tasks, num_fewshot)
        model = _harness_model(checkpoint, device, dtype, batch_size)
        samples = _run(model, list(names.values()), folder, chat_template, limit)
    right = {subject: sum(int(s["acc"]) for s in samples[name]) for subject, name in names.items()}
    asked = {subject: len(samples[name]) for subject, name in names.items()}
    scores = {subject: Score.of(right[subject], asked[subject]) for subject in names}
    answered = {name: _answered(samples[task], exam.layout) for name, task in names.items()}
    answers = answers_of(exam_parts(exam), answered)
    return MultipleChoice(
        overall=Score.of(sum(right.values()), sum(asked.values())),
        macro_accuracy=sum(score.accuracy for score in scores.values()) / len(scores),
        subjects=scores,
        chance=CHANCE,
        num_fewshot=num_fewshot,
        chat_template=chat_template,
        cut_prompts=_count_cut(model, [s for rows in samples.values() for s in rows]),
        contamination=without_contaminated(read_training_record(Path(checkpoint)), answers),
    )


def _answered(samples: list[dict[str, Any]], layout: Layout) -> list[tuple[str, bool]]:
    """(key, whether it was answered right) of every question that the harness scored."""
    keys = item_keys([item_of(sample["doc"], layout) for sample in samples])
    return [(key, bool(sample["acc"])) for key, sample in zip(keys, samples, strict=True)]


def _harness_model(checkpoint: Path, device: str, dtype: str, batch_size: int) -> Any:
    from lm_eval.models import huggingface

    hflm: Any = huggingface.HFLM  # its constructor's types hide the arguments
    try:
        return hflm(pretrained=str(checkpoint), device=device, dtype=dtype, batch_size=batch_size)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"transformers cannot load {checkpoint}: {error}") from error


def _run(
    model: Any, tasks: list[str], folder: Path, chat_template: bool, limit: int | None
) -> dict[str, list[dict[str, Any]]]:
    """The scored questions of each task; `evaluate` is what the command `lm_eval` runs too."""
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results = evaluate(
        lm=model,
        task_dict=manager.load(tasks),
        limit=limit,
        bootstrap_iters=0,  # its standard errors are not used: the interval is Wilson's
        apply_chat_template=chat_template,
        fewshot_as_multiturn=chat_template,
    )
    if results is None:
        raise UserError(
            "the harness returns results on rank 0 only; run mengya evaluate in a single process"
        )
    return cast(dict[str, list[dict[str, Any]]], results.get("samples", {}))


def _count_cut(model: Any, samples: list[dict[str, Any]]) -> int:
    prompts = [sample["arguments"][0] for sample in samples]
    lengths = [len(model.tok_encode(prompt + choice)) - 1 for prompt, choice in prompts]
    return sum(length > model.max_length for length in lengths)


def _go_offline() -> None:
    """All files are local: a name that looks like a Hub repository must not be looked up."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ.setdefault(name, "1")


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mengya-exam-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # a memory-mapped file may outlive us on Windows


@contextmanager
def _quiet(show: bool) -> Iterator[None]:
    """Suppress progress bars and notes of the harness and its libraries; show them after an error."""
    if show:
        yield
        return
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "transformers")]
    levels = [logger.level for logger in loggers]
    noise = io.StringIO()
    try:
        with redirect_stderr(noise):
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    except UserError:
        raise
    except BaseException:
        sys.stderr.write(noise.getvalue())
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
