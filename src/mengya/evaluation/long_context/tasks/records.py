"""Files of LongBench-style items -> items, checked line by line, and their prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from mengya.data.ingest.reading.read import read_records
from mengya.data.ingest.reading.records import BadLine, BadLines
from mengya.errors import UserError, shown
from mengya.evaluation.long_context.tasks.kinds import PROMPTS, DataSet, Kind, data_set

_SLOT = re.compile(r"\{(context|input)\}")
_TRUTH = {"retrieval_zh": r"段落\d+", "retrieval_en": r"Paragraph \d+", "count": r"\d+"}


@dataclass(frozen=True)
class Task:
    """
    Attributes:
        length: as the file has it (LongBench: characters of Chinese, words of English), or None.
    """

    data_set: str
    rules: DataSet
    id: str
    prompt: str
    answers: list[str]
    all_classes: list[str]
    length: int | None


def read_tasks(
    files: Sequence[Path],
    prompts: Mapping[str, str],
    kinds: dict[str, Kind],
    limit: int | None,
    bad_lines: BadLines,
) -> dict[str, list[Task]]:
    """The items of all files by data set, in their order.

    Args:
        prompts: of data sets by name; the others have ours.
        kinds: how data sets are scored that are not LongBench's.
        limit: only the first so many items of each data set.

    Raises:
        UserError: no item, a data set of unknown kind, or too many bad lines.
    """
    found: dict[str, list[Task]] = {}
    for file in files:
        for record in read_records(str(file), bad_lines):
            try:
                task = _task(record.value, record.line, prompts, kinds)
            except ValueError as error:
                bad_lines.add(BadLine(record.file, record.line, str(error)))
                continue
            own = found.setdefault(task.data_set, [])
            if limit is None or len(own) < limit:
                own.append(task)
    if not found:
        raise UserError(f"{', '.join(map(str, files))}: no item to ask")
    return found


def read_prompts(path: Path | None) -> dict[str, str]:
    """Data set -> prompt with {context}, out of a JSON file; of none, nothing.

    Raises:
        UserError: it cannot be read, or a prompt does not hold the context.
    """
    if path is None:
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"long_context.prompts: {path} is not JSON in UTF-8 ({error})") from error
    if not isinstance(values, dict) or not values:
        raise UserError(
            f"long_context.prompts: {path} is no object of data sets and prompts, such as LongBench's "
            "config/dataset2prompt.json"
        )
    for name, prompt in values.items():
        if not isinstance(prompt, str) or "{context}" not in prompt:
            raise UserError(
                f"long_context.prompts: the prompt of {name!r} in {path} has no {{context}}"
            )
    return values


def _task(value: Any, line: int, prompts: Mapping[str, str], kinds: dict[str, Kind]) -> Task:
    """Raises ValueError with the reason when it is none."""
    if not isinstance(value, dict):
        raise ValueError(f"not an object with `context` and `answers`: {shown(value)}")
    texts = {name: value.get(name, "") for name in ("input", "context", "dataset")}
    if wrong := [name for name, text in texts.items() if not isinstance(text, str)]:
        raise ValueError(f"`{wrong[0]}` must be a text, got {shown(texts[wrong[0]])}")
    name = texts["dataset"]
    if not name or not texts["context"]:
        raise ValueError(f"no `{'context' if name else 'dataset'}`")
    rules = data_set(name, kinds)
    if rules is None:
        raise ValueError(
            f"dataset {name!r} is none of LongBench; say how it is scored with "
            f"long_context.kinds={{{name}: KIND}}, one of {', '.join(get_args(Kind))}"
        )
    answers = _texts(value, "answers")
    if not answers:
        raise ValueError("`answers` is empty")
    classes = _texts(value, "all_classes") if value.get("all_classes") is not None else []
    if rules.kind == "classification" and not classes:
        raise ValueError("`all_classes` is empty, and the data set is a classification")
    form = _TRUTH.get(rules.kind)
    if form and (bad := [answer for answer in answers if not re.search(form, answer)]):
        raise ValueError(f"the answer {shown(bad[0])} names no number of the form {form}")
    length = value.get("length")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int)):
        raise ValueError(f"`length` must be an integer, got {shown(length)}")
    named = prompts.get(name) or prompts.get(name.removesuffix("_e")) or PROMPTS[rules.kind]
    prompt = _SLOT.sub(lambda match: texts[match[1]], named)
    ident = str(value.get("_id") or f"{name}:{line}")
    return Task(name, rules, ident, prompt, answers, classes, length)


def _texts(value: Mapping[str, Any], name: str) -> list[str]:
    texts = value.get(name)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"`{name}` must be a list of texts, got {shown(texts)}")
    return texts
