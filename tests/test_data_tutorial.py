"""The data tutorial, typed in a folder with the examples: what it shows comes, or is a part of what comes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.doc_page import ROOT, exchanges, screen_after
from tests.helpers.shown_output import difference

PAGE = "docs/data_tutorial.md"


def holds(screen: str, shown: str) -> bool:
    """Whether the shown lines follow one another on the screen."""
    came, count = screen.splitlines(), len(shown.splitlines())
    runs = ("\n".join(came[at : at + count]) for at in range(len(came) - count + 1))
    return any(difference(shown, run) is None for run in runs)


@pytest.mark.slow
def test_the_page_shows_what_comes(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for exchange in exchanges(PAGE):
        screen = screen_after(exchange, tmp_path)
        assert not exchange.shown or holds(screen, exchange.shown), f"{exchange.command}\n{screen}"


def test_the_raw_text_is_what_the_page_says(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "examples/raw_town_text.py", tmp_path / "raw"]
    subprocess.run(command, check=True)
    counts = []
    for name in ("news", "forum"):
        lines = (tmp_path / f"raw/{name}.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["text"] for line in lines]
        counts.append((len(texts), len(set(texts))))
    assert counts == [(325, 320), (155, 155)]
    with (tmp_path / "raw/ceval/val/town_val.csv").open(encoding="utf-8", newline="") as file:
        assert [row["answer"] for row in csv.DictReader(file)] == ["D"] * 4
