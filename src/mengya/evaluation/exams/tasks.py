"""A benchmark, asked by a protocol, as tasks of lm-evaluation-harness: one a subject.

Local rows replace the data of the harness's own definition, so prompt, few-shot examples and scoring are the
harness's; without local rows the harness loads its data from the Hub. Imports lm_eval (extra `eval`).
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import datasets
import lm_eval
import lm_eval.utils
from datasets.table import InMemoryTable
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from mengya.data.exams.folders import check_subjects
from mengya.data.exams.local import LocalExam, LocalSubject
from mengya.errors import UserError
from mengya.evaluation.exams.benchmarks import BENCHMARKS, Benchmark, Protocol
from mengya.evaluation.exams.definitions import HUB_DATA, OWN, PROTOCOLS
from mengya.runtime.optional import require

_HARNESS = Path(cast(str, lm_eval.__file__)).parent / "tasks"
_FEWSHOT_SEED = 1234  # simple_evaluate's, as are those below

Tasks = dict[str, ConfigurableTask]
"""By subject."""


def local_tasks(exam: LocalExam, protocol: Protocol, num_fewshot: int | None) -> Tasks:
    """
    Raises:
        UserError: fewer examples than num_fewshot.
    """
    return {
        subject: _built(exam.benchmark, subject, protocol, num_fewshot, _local(exam, subject, rows))
        for subject, rows in exam.subjects.items()
    }


def hub_tasks(
    name: str, protocol: Protocol, num_fewshot: int | None, subjects: list[str] | None
) -> Tasks:
    """
    Raises:
        UserError: the benchmark has no data on the Hub, they cannot be loaded, or not the subjects named.
    """
    configs = _hub_configs(name, BENCHMARKS[name])
    check_subjects(f"the benchmark {name}", subjects, list(configs))
    tasks: Tasks = {}
    for subject in subjects or configs:
        try:
            tasks[subject] = _built(name, subject, protocol, num_fewshot, configs[subject])
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"cannot load {configs[subject].get('dataset_path')} from the Hub: {first}; check the "
                f"network (HF_ENDPOINT names a mirror, HF_TOKEN opens gated data), or give local "
                f"files: exams=FOLDER"
            ) from error
    return tasks


def _local(exam: LocalExam, subject: str, rows: LocalSubject) -> dict[str, Any]:
    """The definition with these rows as its data."""
    benchmark = BENCHMARKS[exam.benchmark]
    if exam.benchmark == "ifeval":
        _require_ifeval()
    config = dict(OWN.get(exam.benchmark) or _harness_file(benchmark, subject))
    scored = "test" if config.get("test_split") else "validation"
    splits = {"scored": _dataset(rows.rows)}
    if rows.examples:
        splits["examples"] = _dataset(rows.examples)
    return {
        **config,
        "dataset_path": None,
        "dataset_name": None,
        "dataset_kwargs": None,
        "custom_dataset": lambda **_: splits,
        "training_split": None,
        "validation_split": "scored" if scored == "validation" else None,
        "test_split": "scored" if scored == "test" else None,
        "fewshot_split": "examples" if rows.examples else "scored",
    }


def _dataset(rows: list[dict[str, Any]]) -> datasets.Dataset:
    """With a fingerprint of ours: theirs pickles the table, which fails with some versions of pyarrow."""
    table = InMemoryTable.from_pylist(rows)
    text = json.dumps(rows, ensure_ascii=False, sort_keys=True)
    return datasets.Dataset(table, fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16])


def _harness_file(benchmark: Benchmark, subject: str) -> dict[str, Any]:
    assert benchmark.file is not None
    file = _HARNESS / benchmark.file.format(subject)
    if file.is_file():
        return load_yaml(file)
    config = load_yaml(_HARNESS / benchmark.file.format(benchmark.any_subject))
    if benchmark.description:
        config["description"] = benchmark.description.format(subject.replace("_", " "))
    return config


def _hub_configs(name: str, benchmark: Benchmark) -> dict[str, dict[str, Any]]:
    """By subject, data not loaded yet."""
    if name == "ifeval":
        _require_ifeval()
    if name in HUB_DATA:
        return {name: {**OWN[name], **HUB_DATA[name]}}
    if benchmark.hub is None:
        raise UserError(
            f"exams={name}: {benchmark.title} is read from local files only; write exams=FOLDER or "
            "exams=FILE with its files as its authors publish them"
        )
    index = TaskManager().task_index
    names = (benchmark.hub,) if isinstance(benchmark.hub, str) else benchmark.hub
    leaves = [leaf for each in names for leaf in _leaves(each, index)]
    return {_subject(leaf, name, names): load_yaml(str(index[leaf].yaml_path)) for leaf in leaves}


def _leaves(name: str, index: Mapping[str, Any]) -> Iterator[str]:
    """The tasks of a group or tag, in its order."""
    entry = index[name]
    if entry.kind.name == "GROUP":
        for member in load_yaml(entry.yaml_path, resolve_func=False)["task"]:
            yield from _leaves(member if isinstance(member, str) else member["task"], index)
    elif entry.kind.name == "TAG":
        for member in sorted(entry.tags):
            yield from _leaves(member, index)
    else:
        yield name


def _subject(leaf: str, name: str, roots: tuple[str, ...]) -> str:
    for prefix in (*roots, name, "agieval"):
        if leaf.startswith(f"{prefix}_"):
            return leaf.removeprefix(f"{prefix}_")
    return leaf


def _built(
    name: str, subject: str, protocol: Protocol, num_fewshot: int | None, config: dict[str, Any]
) -> ConfigurableTask:
    config = {**config, "task": f"{name}/{subject}"}
    if config["output_type"] == "multiple_choice":  # parts of AGIEval are written in any protocol
        config |= PROTOCOLS.get((name, protocol), {})
    for structural in ("tag", "group", "task_alias"):
        config.pop(structural, None)
    if num_fewshot is None:
        num_fewshot = int(config.get("num_fewshot") or 0)
    config["num_fewshot"] = num_fewshot
    with _seeded():
        task = ConfigurableTask(config=config)
    task.set_fewshot_seed(_FEWSHOT_SEED)
    _check_examples(task, subject, num_fewshot)
    return task


def _check_examples(task: ConfigurableTask, subject: str, num_fewshot: int) -> None:
    if not num_fewshot:
        return
    split = task.fewshot_cfg.split
    own = split == (task.config.test_split or task.config.validation_split)
    there = len(task.dataset[split]) - own  # a question is no example for itself
    if there < num_fewshot:
        raise UserError(
            f"num_fewshot={num_fewshot}, but subject {subject} has {there} examples; write "
            f"num_fewshot={there} or less"
        )


def _require_ifeval() -> None:
    """
    Raises:
        UserError: what the harness's checks of IFEval need is not there.
    """
    require("langdetect", "eval")
    nltk = require("nltk", "eval")
    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError as error:
        raise UserError(
            "ifeval counts sentences with nltk's punkt_tab, which is not here; type: "
            "python -m nltk.downloader punkt_tab"
        ) from error


@contextmanager
def templates_compiled_once() -> Iterator[None]:
    """The harness compiles each template again for every question, which takes longer than a small model's
    answers; here it remembers them."""
    environment: Any = lm_eval.utils.env
    environment.from_string = cache(environment.from_string)
    try:
        yield
    finally:
        del environment.from_string  # the class's own method again


@contextmanager
def _seeded() -> Iterator[None]:
    """GPQA shuffles its options by the global generator, which lm_eval seeds with 0."""
    before = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(before)
