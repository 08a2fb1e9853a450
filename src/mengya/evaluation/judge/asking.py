"""A pair of answers -> the prompts of the judge: both orders, as often as there are rounds.

Question and answers stand between marks with a number that is a hash of them, so that no answer can close its
own; the prompt says that what is between marks is material and no instruction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mengya.endpoint.messages import Prompt
from mengya.evaluation.judge.questions import Question
from mengya.text.prompt_template import Template, read_template

_OURS = Path(__file__).with_name("prompt.md")
_SPEAKER = {"system": "系统", "user": "用户", "assistant": "助手"}
SLOTS = ("question", "first", "second")


@dataclass(frozen=True)
class Pair:
    """A question with the answers of both sides."""

    question: Question
    first: str
    second: str

    @property
    def is_identical(self) -> bool:
        """A tie that nobody needs to judge."""
        return self.first.strip() == self.second.strip()


@dataclass(frozen=True)
class Asked:
    """One request: in which round, whether the second side's answer stands first, and what is sent."""

    round: int
    swapped: bool
    prompt: Prompt


def load_prompt(path: Path | None) -> Template:
    """Our prompt, or a user's, with {{question}}, {{first}} and {{second}}, maybe {{reference}}.

    Raises:
        UserError: as `read_template`.
    """
    return read_template("judge", path or _OURS, "prompt", (*SLOTS, "reference"), SLOTS, _OURS)


def requests(
    pair: Pair, template: Template, rounds: int, max_answer_characters: int
) -> Iterator[Asked]:
    """Both orders of each round; none of a pair that is identical."""
    if pair.is_identical:
        return
    for number in range(1, rounds + 1):
        for swapped in (False, True):
            order = (pair.second, pair.first) if swapped else (pair.first, pair.second)
            values = _slots(pair.question, *order, max_answer_characters)
            name = f"{pair.question.id}/{number}/{'swapped' if swapped else 'as given'}"
            yield Asked(number, swapped, Prompt(name, template.messages(values)))


def _slots(question: Question, first: str, second: str, longest: int) -> dict[str, str]:
    texts = [_asked(question), question.reference, first, second]
    number = _unused_number(texts)
    reference = ""
    if question.reference:
        reference = (
            "供你参考的正确答案（回答不必与它字句相同）：\n"
            f"{_marked('参考答案', number, question.reference)}"
        )
    return {
        "question": _marked("问题", number, texts[0]),
        "reference": reference,
        "first": _marked("回答甲", number, first, longest),
        "second": _marked("回答乙", number, second, longest),
    }


def _asked(question: Question) -> str:
    if isinstance(question.prompt, str):
        return question.prompt
    return "\n".join(f"{_SPEAKER[turn['role']]}：{turn['content']}" for turn in question.prompt)


def _unused_number(texts: list[str]) -> str:
    """Eight hexadecimal digits that stand in none of the texts."""
    joined, tries = "\0".join(texts), 0
    while True:
        number = hashlib.sha256(f"{tries}\0{joined}".encode()).hexdigest()[:8]
        if number not in joined:
            return number
        tries += 1


def _marked(name: str, number: str, text: str, longest: int | None = None) -> str:
    note = ""
    if not text.strip():
        note = f"\n（{name}是空的。）"
    elif longest is not None and len(text) > longest:
        note = f"\n（{name}过长，共 {len(text)} 字，这里只给出前 {longest} 字；不要因此扣分。）"
        text = text[:longest]
    return f"<{name} {number}>\n{text}\n</{name} {number}>{note}"
