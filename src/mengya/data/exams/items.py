"""Exams that a user names -> their items: questions with options, in parts that can be recognised again.

Takes folders in the layouts that `mengya evaluate` asks, or records of any form with a field that holds the
question. Of the folders the scored questions are read, those of `evaluate`. Knows nothing of training text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from mengya.data.exams.config import ExamSource
from mengya.data.exams.folders import LETTERS, Exam, Layout, find_exam, find_layout, read_questions
from mengya.data.ingest.reading.files import find_files
from mengya.data.ingest.reading.read import read_records
from mengya.data.ingest.reading.records import BadLines
from mengya.errors import UserError, shown
from mengya.text.contamination.items import Item, item_keys

FIELDS = (
    "question", "Question", "problem", "Problem", "question_content", "prompt", "input", "text",
)  # fmt: skip
_OPTIONS = ("options", "choices", "choice")
_OPTION_LETTERS = "ABCDEFGH"
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
_MANY = 1 << 62  # bad lines: they are counted, then refused with words of our own
_SHOWN = 12  # fields that a message names


@dataclass(frozen=True)
class ExamPart:
    """A subject or file of an exam.

    Attributes:
        keys: of `item_keys`, of every item.
        digest: of those in their order: the same part gives the same one wherever it is read.
    """

    name: str
    items: list[Item]
    keys: list[str]
    digest: str


@dataclass(frozen=True)
class NamedExam:
    """An exam under the name that reports give it."""

    name: str
    parts: list[ExamPart]

    @property
    def items(self) -> list[Item]:
        return [item for part in self.parts for item in part.items]


def read_exams(sources: Sequence[ExamSource]) -> list[NamedExam]:
    """Every exam with its items.

    Raises:
        UserError: no such file, no field that holds a question, a bad line, two exams of one name.
    """
    exams = [_read(source) for source in sources]
    for number, exam in enumerate(exams):
        if exam.name in {other.name for other in exams[:number]}:
            values = {"path": sources[number].path, "name": f"{exam.name}-{number + 1}"}
            named = json.dumps(values, ensure_ascii=False)
            raise UserError(
                f"two exams are called {exam.name}; write {named} in the place of the second in "
                "contamination.exams, or leave it out"
            )
    return exams


def exam_parts(exam: Exam) -> list[ExamPart]:
    """The scored subjects of a folder."""
    return [
        exam_part(subject, [item_of(row, exam.layout) for row in read_questions(file, exam.layout)])
        for subject, file in exam.scored.items()
    ]


def item_of(row: Mapping[str, Any], layout: Layout) -> Item:
    """The item of a row of an exam folder, or of the same row as the harness gives it back."""
    return Item(str(row[layout.question]), tuple(str(row[letter]) for letter in LETTERS))


def item_of_record(record: Mapping[str, Any]) -> Item | None:
    """The item of a record, as `read_exams` reads it where no field is named; None: it has none."""
    name = next((name for name in FIELDS if _holds([record], name)), None)
    return None if name is None else next(_items([record], [name]), None)


def exam_part(name: str, items: list[Item]) -> ExamPart:
    """A part with its digest."""
    keys = item_keys(items)
    digest = blake2b("\n".join(keys).encode(), digest_size=8).hexdigest()
    return ExamPart(name, items, keys, digest)


def exam_name(source: ExamSource) -> str:
    """The given name, or that of its folder or file."""
    return source.name or Path(source.path).resolve().name.split(".")[0] or source.path


def exam_files(source: ExamSource) -> list[Path]:
    """The files that `read_exams` reads of a source."""
    if (exam := _folder(source)) is not None:
        return list(exam.scored.values())
    if Path(source.path).name.lower().endswith(_ARCHIVES):
        raise UserError(
            f"the exam {source.path} is an archive: unpack it, and name the folder or file that comes out"
        )
    return find_files(source.path)


def _read(source: ExamSource) -> NamedExam:
    name = exam_name(source)
    if (exam := _folder(source)) is not None:
        return NamedExam(name, exam_parts(exam))
    parts = [_read_file(file, source) for file in exam_files(source)]
    if not any(part.items for part in parts):
        raise UserError(f"the exam {source.path} holds no question")
    return NamedExam(name, parts)


def _folder(source: ExamSource) -> Exam | None:
    """The folder in a layout of `mengya evaluate`, unless a field says that it is none."""
    folder = Path(source.path)
    found = find_layout(folder)
    if found is None or source.field not in (None, found[0].question):
        return None
    return find_exam(folder)


def _read_file(file: Path, source: ExamSource) -> ExamPart:
    values = exam_records(file)
    names = [source.field] if isinstance(source.field, str) else source.field
    if names is None:
        names = [next((name for name in FIELDS if _holds(values, name)), "")]
    if values and not _holds(values, names[0]):
        raise UserError(_no_field(file, source, values))
    return exam_part(file.name, list(_items(values, names)))


def exam_records(file: Path) -> list[Any]:
    """The values of a file of records.

    Raises:
        UserError: a line cannot be read; names the first.
    """
    bad = BadLines(_MANY)
    values = [record.value for record in read_records(str(file), bad)]
    if bad.count:
        first = bad.first[0]
        raise UserError(
            f"the exam {file} has {bad.count} lines that cannot be read; the first is "
            f"{first.file}:{first.line}: {first.reason}; fix them or remove them: "
            "an item that is not read is not looked for"
        )
    return values


def _no_field(file: Path, source: ExamSource, values: list[Any]) -> str:
    found = list(dict.fromkeys(key for each in _objects(values) for key in each))
    texts = [key for key in found if _holds(values, key)]
    sought = f"field {shown(source.field)}" if source.field else f"field {', '.join(FIELDS)}"
    remedy = "no field of it holds text"
    if texts:
        longest = max(texts, key=lambda key: sum(len(o[key]) for o in _objects(values) if key in o))
        remedy = (
            f"its fields are {', '.join(found[:_SHOWN])}; name the one with the question: "
            f'contamination.exams=\'{{"path": "{source.path}", "field": "{longest}"}}\''
        )
    return f"{file} has no {sought} with the question of an item; {remedy}"


def _holds(values: list[Any], name: str) -> bool:
    return any(isinstance(each.get(name), str) and each[name].strip() for each in _objects(values))


def _items(values: list[Any], names: Sequence[str]) -> Iterator[Item]:
    for each in _objects(values):
        texts = [each[name] for name in names if isinstance(each.get(name), str)]
        if any(text.strip() for text in texts):
            yield Item("\n".join(texts), tuple(_options(each)))


def _objects(values: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Every JSON object in the values, outer ones first, in their order."""
    pending = list(values)[::-1]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            value = list(value.values())
        if isinstance(value, list):
            pending += value[::-1]


def _options(item: Mapping[str, Any]) -> list[str]:
    """The options of an item: columns A, B, C ..., or a field of the usual names, as a list or as lines."""
    lettered = [str(item[letter]) for letter in _OPTION_LETTERS if item.get(letter) is not None]
    if len(lettered) > 1:
        return lettered
    for name in _OPTIONS:
        value = item.get(name)
        if isinstance(value, dict):
            value = value.get("text", list(value.values()))  # ARC's {"text": [...], "label": [...]}
        if isinstance(value, str):
            value = value.split("\n")
        if isinstance(value, list):
            texts = [v.get("text", "") if isinstance(v, dict) else v for v in value]
            return [str(text) for text in texts if str(text).strip()]
    return []
