"""Exams as files of records -> rows with the fields that the harness's tasks (or ours) read.

Takes records as their authors publish them and knows each kind by the fields it has. Gives flat rows, one a
question. What is asked of them is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mengya.data.exams.items import exam_records
from mengya.errors import UserError

_LETTERS = "ABCDEFG"


@dataclass(frozen=True)
class RecordLayout:
    """How one benchmark is published.

    Attributes:
        benchmark: its name in evaluation/exams/benchmarks.py.
        fields: what its first record has, all of them.
        rows: (a record, the file's name without its ending) -> its rows; none for a record that cannot be
            scored. Raises KeyError, TypeError or ValueError for a record that is not as it should be.
    """

    benchmark: str
    fields: frozenset[str]
    rows: Callable[[dict[str, Any], str], Iterator[dict[str, Any]]]


def _fields(*names: str) -> Callable[[dict[str, Any], str], Iterator[dict[str, Any]]]:
    """Rows that are these fields of the record as they are."""

    def rows(record: dict[str, Any], _: str) -> Iterator[dict[str, Any]]:
        yield {name: record[name] for name in names}

    return rows


def _gsm8k(record: dict[str, Any], _: str) -> Iterator[dict[str, Any]]:
    if "####" not in record["answer"]:
        raise ValueError("its answer has no line '#### RESULT'")
    yield {"question": record["question"], "answer": record["answer"]}


def _cmath(record: dict[str, Any], _: str) -> Iterator[dict[str, Any]]:
    yield {"input": record["input"], "golden": str(record["golden"]), "grade": record.get("grade")}


def _c3(record: dict[str, Any], _: str) -> Iterator[dict[str, Any]]:
    for asked in record["questions"]:
        choices = [str(choice) for choice in asked["choice"]]
        yield {
            "passage": "\n".join(record["passage"]),
            "question": asked["question"],
            "choice": choices,
            "gold": choices.index(asked["answer"]),
        }


def _cmrc(record: dict[str, Any], _: str) -> Iterator[dict[str, Any]]:
    for article in record["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                answers = [answer["text"] for answer in asked["answers"]]
                yield {
                    "context": paragraph["context"],
                    "question": asked["question"],
                    "answers": list(dict.fromkeys(answers)),
                }


def _xiezhi(record: dict[str, Any], _: str) -> Iterator[dict[str, Any]]:
    choices = record["options"].split("\n")
    yield {
        "question": record["question"],
        "options": record["options"],
        "choice": choices,
        "gold": choices.index(record["answer"]),
        "category": record["labels"][0] if record.get("labels") else "",
    }


def _gaokao_bench(record: dict[str, Any], _: str) -> Iterator[dict[str, Any]]:
    """Questions with one letter as the answer: several blanks under one text have no single score."""
    for asked in record["example"]:
        answer = asked["answer"]
        if isinstance(answer, list) and len(answer) == 1 and answer[0] in set(_LETTERS[:4]):
            yield {"question": asked["question"], "gold": _LETTERS.index(answer[0])}


def _agieval(record: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """The words of AGIEval's own zero-shot prompts (arXiv:2304.06364), which hails/agieval-* hold too."""
    passage, question = record["passage"] or "", record["question"]
    chinese = name not in _AGIEVAL_ENGLISH
    asked = f"{passage}{'问题：' if chinese else 'Q: '}{question}"
    if not (options := record["options"]):
        query = asked + ("\n答案：" if chinese else "\nA: The answer is")
        yield {"question": question, "query": query, "answer": record["answer"]}
        return
    last = _LETTERS[len(options) - 1]
    if chinese:
        query = f"{asked} 选项：{' '.join(options)}\n答案：从A到{last}, 我们应选择"
    else:
        query = (
            f"{asked} Answer Choices: {' '.join(options)}\nA: Among A through {last}, the answer is"
        )
    gold = [_LETTERS.index(letter) for letter in record["label"] if letter in _LETTERS]
    if not gold:
        raise ValueError(f"its label {record['label']!r} names no option")
    yield {
        "question": question,
        "options": options,
        "query": query,
        "choices": options,
        "gold": gold,
    }


_AGIEVAL_ENGLISH = (
    "aqua-rat", "gaokao-english", "logiqa-en", "lsat-ar", "lsat-lr", "lsat-rc", "math", "sat-en",
    "sat-en-without-passage", "sat-math",
)  # fmt: skip
_GPQA = ("Question", "Correct Answer", *(f"Incorrect Answer {n}" for n in (1, 2, 3)))
_STORY = (*(f"input_sentence_{n}" for n in (1, 2, 3, 4)), "sentence_quiz1", "sentence_quiz2",
          "answer_right_ending")  # fmt: skip
_BELEBELE = ("flores_passage", "question", *(f"mc_answer{n}" for n in (1, 2, 3, 4)),
             "correct_answer_num")  # fmt: skip
_CODE = ("question_content", "starter_code", "public_test_cases", "private_test_cases")

# The first whose fields a record has: those with more fields in common come first.
LAYOUTS: Sequence[RecordLayout] = (
    RecordLayout("c3", frozenset({"passage", "questions"}), _c3),
    RecordLayout("cmrc", frozenset({"version", "data"}), _cmrc),
    RecordLayout("gaokao_bench", frozenset({"keywords", "example"}), _gaokao_bench),
    RecordLayout("agieval", frozenset({"passage", "question", "options", "label"}), _agieval),
    RecordLayout("xiezhi", frozenset({"question", "options", "answer", "labels"}), _xiezhi),
    RecordLayout("humaneval", frozenset({"task_id", "prompt", "entry_point", "test"}),
                 _fields("task_id", "prompt", "entry_point", "test")),
    RecordLayout("ifeval", frozenset({"key", "prompt", "instruction_id_list", "kwargs"}),
                 _fields("key", "prompt", "instruction_id_list", "kwargs")),
    RecordLayout("livecodebench", frozenset(_CODE), _fields(*_CODE)),
    RecordLayout("belebele", frozenset(_BELEBELE), _fields(*_BELEBELE)),
    RecordLayout("xstorycloze", frozenset(_STORY), _fields(*_STORY)),
    RecordLayout("xcopa", frozenset({"premise", "choice1", "choice2", "question", "label"}),
                 _fields("premise", "choice1", "choice2", "question", "label")),
    RecordLayout("zhoblimp", frozenset({"sentence_good", "sentence_bad"}),
                 _fields("sentence_good", "sentence_bad")),
    RecordLayout("gpqa", frozenset(_GPQA), _fields(*_GPQA)),
    RecordLayout("math500", frozenset({"problem", "solution", "answer"}),
                 _fields("problem", "solution", "answer")),
    RecordLayout("aime24", frozenset({"Problem", "Answer"}), _fields("Problem", "Answer")),
    RecordLayout("cmath", frozenset({"input", "golden"}), _cmath),
    RecordLayout("gsm8k", frozenset({"question", "answer"}), _gsm8k),
)  # fmt: skip


def find_record_layout(records: Sequence[Any]) -> RecordLayout | None:
    """The benchmark that the first record is of; None: of none."""
    if not records or (first := _as_object(records[0])) is None:
        return None
    return next((layout for layout in LAYOUTS if layout.fields <= first.keys()), None)


def read_rows(file: Path, layout: RecordLayout, records: Sequence[Any]) -> list[dict[str, Any]]:
    """
    Raises:
        UserError: a record is not as the benchmark's are; names it.
    """
    rows: list[dict[str, Any]] = []
    for number, record in enumerate(records, 1):
        values = _as_object(record)
        missing = sorted(layout.fields - (values or {}).keys())
        if values is None or missing:
            raise UserError(
                f"{file}, record {number}: no field {', '.join(missing)}; every record of "
                f"{layout.benchmark} has {', '.join(sorted(layout.fields))}"
            )
        try:
            rows += layout.rows(values, file.name.split(".")[0])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{file}, record {number} is not as those of {layout.benchmark}: {error}; fix it or "
                "take it out"
            ) from error
    return rows


def read_records_of(file: Path) -> tuple[RecordLayout | None, list[Any]]:
    """The layout of a file, and its records.

    Raises:
        UserError: a line cannot be read.
    """
    records = exam_records(file)
    return find_record_layout(records), records


def _as_object(record: Any) -> dict[str, Any] | None:
    """C3's records are lists: passage, questions, number."""
    if isinstance(record, dict):
        return record
    if isinstance(record, list) and len(record) == 3 and isinstance(record[1], list):
        return {"passage": record[0], "questions": record[1]}
    return None
