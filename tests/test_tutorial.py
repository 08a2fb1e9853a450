"""The tutorial, typed by a reader in an empty folder: it shows what comes, and its model knows its facts.

`pytest tests/test_tutorial.py --rewrite-pages` puts what came into both languages of the page.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.doc_page import blocks, exchanges, read, screen_after, write_shown
from tests.helpers.shown_output import difference

PAGE, TRANSLATION = "docs/tutorial.md", "docs/tutorial.zh.md"
EXCHANGES = exchanges(PAGE)


@dataclass(frozen=True)
class Typed:
    """The folder in which the tutorial was typed, and what each of its exchanges put on the screen."""

    folder: Path
    screens: list[str]


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Typed:
    folder = tmp_path_factory.mktemp("tutorial")
    return Typed(folder, [screen_after(exchange, folder) for exchange in EXCHANGES])


def screen_of(command: str, typed: Typed) -> str:
    """What came after the one exchange whose command holds these letters."""
    (found,) = [
        screen
        for exchange, screen in zip(EXCHANGES, typed.screens, strict=True)
        if command in exchange.command
    ]
    return found


def test_the_page_shows_what_comes(typed: Typed, pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("rewrite_pages"):
        for page in (PAGE, TRANSLATION):
            write_shown(page, typed.screens)
        return
    differences = [
        f"$ {exchange.command}{reason}"
        for exchange, screen in zip(EXCHANGES, typed.screens, strict=True)
        if (reason := difference(exchange.shown, screen))
    ]
    assert not differences, "\n\n".join(differences) + "\n\nright so? pytest --rewrite-pages"


def test_every_shown_output_belongs_to_a_command() -> None:
    assert sum(bool(exchange.span) for exchange in EXCHANGES) == len(
        blocks(PAGE, "text", "console")
    )


# Wordings that the page's conversations do not have, and the one there that means the same.
REWORDED = {"挂号费多少？": "挂号费是多少？"}


def trained_answers() -> dict[str, str]:
    """The answers that the page's conversations give to each of their questions."""
    (file,) = [block for block in blocks(PAGE, "sh") if "questions.jsonl" in block]
    answers: dict[str, str] = {}
    for line in file.splitlines()[1:-1]:
        record = json.loads(line)
        turns = [turn["content"] for turn in record.get("messages", [])]
        turns = turns or [record["question"], record["answer"]]
        answers |= dict(zip(turns[::2], turns[1::2], strict=True))
    return answers


def test_the_model_answers_the_pages_questions(typed: Typed) -> None:
    trained = trained_answers()
    (chat,) = [e.command for e in EXCHANGES if e.command.startswith("printf")]
    questions = re.findall(r"[^'\\]+？", chat.replace(r"\n", "\\"))
    assert len(questions) >= 3
    assert any(question not in trained for question in questions)
    right = [trained[REWORDED.get(question, question)] for question in questions]
    assert screen_of("printf", typed).splitlines() == right
    asked = re.search(r'"role": "user", "content": "(.*?)"', screen_command("transformers"))
    assert asked and screen_of("transformers", typed) == f"{trained[asked[1]]}\n"
