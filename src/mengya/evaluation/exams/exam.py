"""One exam: a benchmark of the Hub or local files, put to a model by lm-evaluation-harness (extra `eval`).

Takes an opened checkpoint and the name or path of an exam; gives a result for every protocol asked for, and a
record an item. Prompts, few-shot examples and scoring are the harness's; the answers are our model's.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mengya.data.exams.items import ExamPart, exam_part
from mengya.data.exams.local import LocalExam, read_local_exam
from mengya.data.training_record import read_training_record
from mengya.errors import UserError
from mengya.evaluation.exams.benchmarks import BENCHMARKS, Benchmark, Protocol, find_benchmark
from mengya.evaluation.exams.code.sandbox import require_sandbox
from mengya.evaluation.exams.model.journal import Journal
from mengya.evaluation.exams.result import ExamResult
from mengya.evaluation.exams.samples import Answered, Samples, item_of_doc, summarize
from mengya.evaluation.progress import OnProgress, progress_bar
from mengya.evaluation.subject import Subject
from mengya.runtime.optional import require


@dataclass(frozen=True)
class ExamSettings:
    """How exams are put.

    Attributes:
        protocols: the ways to ask, of those that an exam has; () is each exam's own.
        num_fewshot: solved examples before each question; None: the harness's own number.
        chat_template: ask as a user turn; False continues plain text.
        subjects: only these; None: all.
        limit: only the first so many questions of each subject.
        batch_size: most questions in a forward pass; None: as many as fit.
        run_code: programs that the model writes may run.
    """

    protocols: Sequence[Protocol] = ()
    num_fewshot: int | None = None
    chat_template: bool = False
    subjects: list[str] | None = None
    limit: int | None = None
    batch_size: int | None = None
    run_code: bool = False


def ask_exam(
    subject: Subject,
    exam: str,
    settings: ExamSettings | None = None,
    journal: Journal | None = None,
    show_progress: bool = False,
) -> dict[Protocol, tuple[ExamResult, list[dict[str, Any]]]]:
    """Put every question, by each protocol wanted; gives its result and one record an item.

    Args:
        exam: a name in benchmarks.py, or a path in a layout of data/exams.
        journal: what was answered before a crash, and where answers go; None keeps none.
        show_progress: a bar on stderr; errors of the harness are always shown.

    Raises:
        UserError: lm-eval is not installed, the exam is not known or not valid, or it would run programs
            and may not.
    """
    settings = settings or ExamSettings()
    local = read_local_exam(Path(exam), settings.subjects) if is_path(exam) else None
    name = exam if local is None else local.benchmark
    benchmark = find_benchmark(name)
    if benchmark.code:
        _check_code(exam, benchmark, settings.run_code)
    require("lm_eval", "eval")
    record = read_training_record(subject.folder)
    asked = {}
    for protocol in _protocols(benchmark, settings.protocols):
        with progress_bar(show_progress, f"{benchmark.title}, {protocol}") as on_pass, _quiet():
            answered = _answer(subject, name, local, protocol, settings, journal, on_pass)
        asked[protocol] = summarize(name, protocol, answered, settings.chat_template, record)
    return asked


def is_path(exam: str) -> bool:
    """A benchmark's name stands for the benchmark, though a folder may be called so: ./NAME is the folder."""
    return exam not in BENCHMARKS and ("/" in exam or "\\" in exam or Path(exam).exists())


def _check_code(exam: str, benchmark: Benchmark, allowed: bool) -> None:
    if not allowed:
        raise UserError(
            f"exams={exam}: {benchmark.title} is scored by running the programs that the model writes; "
            "write run_exam_code=true to run them, each in a process of its own with limits of time, "
            "memory, files and network (a guard against accidents, no wall against an attacker)"
        )
    require_sandbox()


def _protocols(benchmark: Benchmark, wanted: Sequence[Protocol]) -> list[Protocol]:
    """Of those wanted the ones that the exam has; its own where it has none of them."""
    had: list[Protocol] = [each for each in dict.fromkeys(wanted) if each in benchmark.protocols]
    return had or [benchmark.protocols[0]]


def _answer(
    subject: Subject,
    name: str,
    local: LocalExam | None,
    protocol: Protocol,
    settings: ExamSettings,
    journal: Journal | None,
    on_pass: OnProgress,
) -> Answered:
    """`evaluate` is what the command `lm_eval` runs too."""
    from lm_eval.evaluator import evaluate

    from mengya.evaluation.exams.model.harness_model import HarnessModel
    from mengya.evaluation.exams.tasks import hub_tasks, local_tasks, templates_compiled_once

    if local is None:
        tasks = hub_tasks(name, protocol, settings.num_fewshot, settings.subjects)
    else:
        tasks = local_tasks(local, protocol, settings.num_fewshot)
    model = HarnessModel(subject, journal or Journal(None, ""), settings.batch_size, on_pass)
    with templates_compiled_once():
        results = evaluate(
            lm=model,
            task_dict=cast(Any, {"tasks": {task.config.task: task for task in tasks.values()}}),
            limit=settings.limit,
            bootstrap_iters=0,  # its standard errors are not used: the interval is Wilson's
            apply_chat_template=settings.chat_template,
            fewshot_as_multiturn=settings.chat_template,
        )
    if results is None:
        raise UserError(
            "the harness returns results on rank 0 only; run mengya evaluate in a single process"
        )
    logged = cast(Samples, results.get("samples", {}))
    if local is None:
        parts = {each: _part(name, each, task.eval_docs) for each, task in tasks.items()}
    else:
        parts = {each: rows.part for each, rows in local.subjects.items()}
    return Answered(
        samples={each: logged[task.config.task] for each, task in tasks.items()},
        parts=parts,
        cut_prompts=model.cut,
        num_fewshot=max(int(task.config.num_fewshot or 0) for task in tasks.values()),
        note=local.left_out if local else "",
    )


def _part(name: str, subject: str, docs: Any) -> ExamPart | None:
    """All questions of a subject of the Hub, as prepare's check knows those of the same local file."""
    items = [item_of_doc(name, doc) for doc in docs]
    return None if None in items else exam_part(subject, [item for item in items if item])


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress progress bars and notes of the harness and its libraries; show them after an error."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "transformers")]
    levels = [logger.level for logger in loggers]
    noise = io.StringIO()
    shown = sys.stderr
    try:
        with redirect_stderr(noise):
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    except UserError:
        raise
    except BaseException:
        shown.write(noise.getvalue())
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
