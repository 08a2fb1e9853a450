"""What is asked, and answers to it, out of files.

A record of questions has `question` (a text) or `messages` (the turns so far, the last one the user's), and
maybe `id`, `category` and `reference` (a known good answer, for the judge); one of answers has `answer` too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mengya.data.ingest.reading.read import parse_chunk, read_chunks
from mengya.data.ingest.reading.records import BadLine, BadLines, Record
from mengya.errors import UserError, shown
from mengya.evaluation.answers.questions import SHOWN, fixed_prompts
from mengya.tokenizer.message import Message

_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Question:
    """
    Attributes:
        prompt: a text, or the turns of a conversation that ends with the user's.
        category: empty where there is none; reference: a known good answer, as well.
    """

    id: str
    prompt: str | list[Message]
    category: str = ""
    reference: str = ""

    @property
    def key(self) -> str:
        """Equal for equal prompts."""
        return json.dumps(self.prompt, ensure_ascii=False, sort_keys=True)


def builtin_questions() -> list[Question]:
    """The 24 that ship with mengya."""
    prompts = fixed_prompts(chat=True)
    return [Question(name, text) for name, text in prompts.items() if name.startswith(SHOWN[0])]


def read_questions(path: Path, bad_lines: BadLines) -> list[Question]:
    """The questions of a file in its order; each prompt once.

    Raises:
        UserError: no question, two questions of one id, too many bad lines.
    """
    questions: dict[str, Question] = {}
    for number, record in enumerate(_records(path, bad_lines), 1):
        try:
            question = _question(record.value, number)
        except ValueError as error:
            bad_lines.add(BadLine(record.file, record.line, str(error)))
            continue
        questions.setdefault(question.key, question)
    ids: dict[str, Question] = {}
    for question in questions.values():
        if ids.setdefault(question.id, question) is not question:
            raise UserError(f"{path}: two questions have the id {question.id!r}; rename one")
    if not questions:
        raise UserError(f"{path} holds no question")
    return list(questions.values())


def read_answers(path: Path, bad_lines: BadLines) -> dict[str, str]:
    """The key of a question -> its answer.

    Raises:
        UserError: two answers to one question, or too many bad lines.
    """
    answers: dict[str, str] = {}
    for number, record in enumerate(_records(path, bad_lines), 1):
        try:
            key = _question(record.value, number).key
            answer = record.value.get("answer")
            if not isinstance(answer, str):
                raise ValueError(f"`answer` must be a text, got {shown(answer)}")
        except ValueError as error:
            bad_lines.add(BadLine(record.file, record.line, str(error)))
            continue
        if answers.setdefault(key, answer) != answer:
            raise UserError(
                f"{record.file}:{record.line} is a second, different answer to one question; remove one: "
                f"{key[:60]}"
            )
    return answers


def _records(path: Path, bad_lines: BadLines) -> Iterator[Record]:
    if not path.is_file():
        raise UserError(f"{path} is not a file; write the path of one, such as questions.jsonl")
    for chunk in read_chunks(path):
        for parsed in parse_chunk(chunk):
            if isinstance(parsed, BadLine):
                bad_lines.add(parsed)
            else:
                yield parsed


def _question(value: Any, number: int) -> Question:
    """Raises ValueError with the reason when there is none in it."""
    if not isinstance(value, dict):
        raise ValueError(f"not an object with `question`: {shown(value)}")
    prompt = value.get("question", value.get("messages"))
    if isinstance(prompt, list):
        _check_messages(prompt)
    elif not isinstance(prompt, str) or not prompt.strip():
        fields = ", ".join(map(str, list(value)[:8])) or "none"
        raise ValueError(f"no `question` (a text) and no `messages`; its fields: {fields}")
    more = [value.get(name) or "" for name in ("category", "reference")]
    if wrong := [text for text in more if not isinstance(text, str)]:
        raise ValueError(f"`category` and `reference` must be texts, got {shown(wrong[0])}")
    return Question(str(value.get("id", number)), prompt, *more)


def _check_messages(messages: list[Any]) -> None:
    for message in messages:
        known = isinstance(message, dict) and message.get("role") in _ROLES
        if not known or not isinstance(message.get("content"), str):
            raise ValueError(
                f"`messages` are objects with `role` and `content`, got {shown(message)}"
            )
    if not messages or messages[-1]["role"] != "user":
        raise ValueError("the last of `messages` must be the user's")
