"""LongBench-style tasks on a checkpoint: the score of each data set, over all items and by length bucket.

Answers are greedy. A prompt beyond the context is cut in the middle as in LongBench; notes say how many were.
An item is in the bucket of its `length`, with LongBench-E's edges of 4,000 and 8,000, where the file has one;
else in that of the tokens of its full prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mengya.data.ingest.reading.records import BadLines
from mengya.errors import UserError
from mengya.evaluation.answers.answer import answers, prompt_ids
from mengya.evaluation.long_context.buckets import Buckets
from mengya.evaluation.long_context.config import LongContextConfig
from mengya.evaluation.long_context.tasks.middle import cut_middle
from mengya.evaluation.long_context.tasks.records import Task, read_prompts, read_tasks
from mengya.evaluation.long_context.tasks.scoring import Cut, cutter, score
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickResult
from mengya.measured.intervals import bootstrap_share
from mengya.measured.measurement import Measurement
from mengya.tokenizer.load import plain_backend

_LENGTH_EDGES = (4000, 8000)  # of LongBench-E, in its own lengths
_GROUP_TOKENS = 1 << 16  # of prompts that are answered at once


@dataclass(frozen=True)
class _Asked:
    """
    Attributes:
        prompt: as it is asked; `removed` tokens were cut out of it.
        tokens: of the full prompt.
    """

    task: Task
    prompt: str
    removed: int
    tokens: int
    bucket: str


def task_figures(subject: Subject, buckets: Buckets, config: LongContextConfig) -> YardstickResult:
    """long_context/task/DATASET, and long_context/task/DATASET/BUCKET.

    Raises:
        UserError: the files cannot be used, or a data set's answers do not fit into the context.
    """
    prompts, cut = read_prompts(config.prompts), cutter(config.words)
    bad_lines = BadLines(config.max_bad_lines)
    tasks = read_tasks(config.tasks, prompts, config.kinds, config.limit, bad_lines)
    measured: list[Measurement] = []
    items: list[dict[str, Any]] = []
    for name, own in tasks.items():
        asked = [_asked(subject, buckets, task) for task in own]
        records = _answered(subject, asked, cut)
        measured += _figures(name, own, asked, records, name in prompts, config)
        items += records
    return YardstickResult(measured, items)


def _asked(subject: Subject, buckets: Buckets, task: Task) -> _Asked:
    subject = _form(subject, task)
    room = subject.context_length - task.rules.max_new_tokens
    tokenizer = plain_backend(subject.tokenizer)

    def count(text: str) -> int:
        return len(prompt_ids(subject, text))

    tokens = count(task.prompt)
    try:
        prompt, removed = cut_middle(task.prompt, tokenizer, room, count)
    except ValueError:
        raise UserError(
            f"{task.data_set}: a prompt and an answer of {task.rules.max_new_tokens} tokens do not fit the "
            f"model's context of {subject.context_length:,}; leave its file out of long_context.tasks"
        ) from None
    own = Buckets(_LENGTH_EDGES) if task.length is not None else buckets
    return _Asked(task, prompt, removed, tokens, own.name(task.length or tokens))


def _form(subject: Subject, task: Task) -> Subject:
    """Some data sets are asked as plain text, of chat models too."""
    return replace(subject, chat=subject.chat and not task.rules.plain)


def _answered(subject: Subject, asked: Sequence[_Asked], cut: Cut) -> list[dict[str, Any]]:
    """The records of a data set's items, answered in groups that fit into memory."""
    records: list[dict[str, Any]] = []
    rows = max(1, _GROUP_TOKENS // subject.context_length)
    for start in range(0, len(asked), rows):
        group = asked[start : start + rows]
        made = answers(
            _form(subject, group[0].task),
            [one.prompt for one in group],
            temperature=None,
            max_new_tokens=group[0].task.rules.max_new_tokens,
        )
        for one, answer in zip(group, made, strict=True):
            task, rules = one.task, one.task.rules
            value = score(
                rules.kind,
                answer.text,
                task.answers,
                task.all_classes,
                cut,
                rules.first_line,
            )
            records.append(
                {
                    "part": f"task/{task.data_set}/{one.bucket}",
                    "id": task.id,
                    "score": value,
                    "tokens": one.tokens,
                    "removed": one.removed,
                    "answers": task.answers,
                    "text": answer.text,
                }
            )
    return records


def _figures(
    name: str,
    tasks: Sequence[Task],
    asked: Sequence[_Asked],
    records: Sequence[dict[str, Any]],
    own_prompt: bool,
    config: LongContextConfig,
) -> list[Measurement]:
    kind = tasks[0].rules.kind
    notes = [kind]
    if kind in ("f1_zh", "rouge_zh"):
        notes.append("by words of jieba" if config.words == "jieba" else "by characters")
    notes.append("prompt of a file" if own_prompt else "our prompt")
    by_bucket: dict[str, list[int]] = {}
    for number, one in enumerate(asked):
        by_bucket.setdefault(one.bucket, []).append(number)
    everything = [
        ("", list(range(len(asked)))),
        *((f"/{b}", own) for b, own in sorted(by_bucket.items())),
    ]
    figures = []
    for part, numbers in everything:
        values = [records[number]["score"] for number in numbers]
        cut = sum(asked[number].removed > 0 for number in numbers)
        said = [*notes, f"{cut:,} prompts cut to the context"] if cut else notes
        figures.append(
            Measurement(
                f"long_context/task/{name}{part}", sum(values) / len(values),
                bootstrap_share(values, config.seed), len(values), "share", "higher", None, ", ".join(said),
            )
        )  # fmt: skip
    return figures
