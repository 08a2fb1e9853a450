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


# Wordings that the page's conversations do not have, and the one there that means the same.
REWORDED = {"挂号费多少？": "挂号费是多少？"}


@dataclass(frozen=True)
class Typed:
    """The folder in which the tutorial was typed, and what each of its exchanges put on the screen."""

    folder: Path
    screens: list[str]

    def after(self, command: str) -> str:
        """What came after the one block of commands that holds these letters."""
        return self.screens[index_of(command)]


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Typed:
    folder = tmp_path_factory.mktemp("tutorial")
    return Typed(folder, [screen_after(exchange, folder) for exchange in EXCHANGES])


def index_of(command: str) -> int:
    """Which exchange, errors left out, has these letters in its command."""
    (index,) = [n for n, e in enumerate(EXCHANGES) if command in e.command and not e.exit_code]
    return index


def typed_block(command: str) -> str:
    """The one block of commands that holds these letters."""
    return EXCHANGES[index_of(command)].command


def trained_answers() -> dict[str, str]:
    """What the page's conversations answer to each of their questions."""
    answers: dict[str, str] = {}
    for line in typed_block("cat > clinic/chat").splitlines()[1:-1]:
        record = json.loads(line)
        turns = [turn["content"] for turn in record.get("messages", [])]
        turns = turns or [record["question"], record["answer"]]
        answers |= dict(zip(turns[::2], turns[1::2], strict=True))
    return answers


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
    assert not differences, "\n\n".join([*differences, "Right so? pytest --rewrite-pages"])


def test_every_shown_output_belongs_to_a_command() -> None:
    shown = [exchange for exchange in EXCHANGES if exchange.span]
    assert len(shown) == len(blocks(PAGE, "text", "console"))


def test_the_model_answers_what_the_page_asks(typed: Typed) -> None:
    """As its conversations answer; one question at least is worded as none of them."""
    trained = trained_answers()
    questions: list[str] = re.findall(r"[^'\\]+？", typed_block("printf").replace("\\n", "\\"))
    assert len(questions) == 3
    assert set(REWORDED) == set(questions) - set(trained)
    right = [trained[REWORDED.get(question, question)] for question in questions]
    assert typed.after("printf").splitlines() == right
    (asked,) = re.findall(r'"role": "user", "content": "(.*?)"', typed_block("transformers"))
    assert typed.after("transformers").splitlines()[-1] == trained[asked]


def test_the_files_that_the_tutorial_names_are_there(typed: Typed) -> None:
    run = typed.folder / "runs/clinic/pretrain"
    table = re.findall(r"^\| (`.*?) \|", read(PAGE), re.MULTILINE)
    names = [name for cell in table for name in re.findall(r"`([^`]+)`", cell)]
    assert len(names) == 8
    for name in names:
        assert (run / name).exists() or (run / "checkpoints" / name).exists(), name
    for name in ("tokenizer/tokenizer_run.yaml", "tokenizer/tokenizer_report.json"):
        assert (typed.folder / "runs/clinic" / name).is_file()
    assert (typed.folder / "runs/clinic/sft/checkpoints/latest/evaluation.json").is_file()


@pytest.mark.parametrize("page", [PAGE, TRANSLATION])
def test_figures_in_the_text_are_those_that_came(page: str, typed: Typed) -> None:
    best = (typed.folder / "runs/clinic/pretrain/checkpoints/best").resolve().name
    table = re.findall(
        r"^ town .* (\d+) +(\d+) +\d+ +\d+$", typed.after("fraction=0.2"), re.MULTILINE
    )
    kept, held_out = map(int, table[0])
    printed = typed.after("mengya pretrain clinic/pretrain.yaml\n")
    (epochs,) = re.findall(r"([\d.]+) epochs$", printed, re.MULTILINE)
    losses = re.findall(r"/60  loss ([\d.]+)", printed)
    named = {
        r"(?:here step|这里是第) (\d+)": int(best.removeprefix("step-")),
        r"(\d+)(?: sentences,| 句话，并)": kept - held_out,
        r"(\d+)(?: epochs, and| 个\s+epoch)": float(epochs),
        r"(?:It falls to|它降到) ([\d.]+\d)": round(float(losses[-1]), 1),
    }
    for pattern, right in named.items():
        assert [float(each) for each in re.findall(pattern, read(page))] == [right], pattern


@pytest.mark.parametrize(
    ("shown", "came", "same"),
    [
        ("step 20/80  loss 4.188  4,380 tok/s", "step 20/80  loss 4.189  980 tok/s", True),
        ("step 20/80  loss 4.188  4,380 tok/s", "step 20/80  loss 4.588  4,380 tok/s", False),
        ("step 20/80  loss 4.188  4,380 tok/s", "step 20/60  loss 4.188  4,380 tok/s", False),
        ("step 20/80  loss 0.030  4,380 tok/s", "step 20/80  loss 0.036  4,380 tok/s", True),
        ("step 20/80  loss 0.030  4,380 tok/s", "step 20/80  loss 0.051  4,380 tok/s", False),
        ("│ nats per token │ 9.9940 │", "│ nats per token │ 10.0140 │", True),
        ("town 25 1 0 24 5 759 626", "town 25 1 0 24 5 795 626", False),
        ("0.62M parameters", "0.63M parameters", False),
        ("done in 12.5 s", "done in 9 s", True),
        ("one\ntwo", "one", False),
        ("one", "one\ntwo", False),
    ],
)
def test_what_may_differ_between_machines(shown: str, came: str, same: bool) -> None:
    assert (difference(shown, came) is None) == same
