"""Measured figures have a source: README's stand in docs/results.md, those of results in the log page linked.

A figure is found when its source has a number that rounds to it. What a plan computes and what the tutorial
prints is made again by test_readme.py and test_tutorial.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from tests.helpers.doc_page import read

NUMBER = re.compile(r"(?<![\w.])(\d+(?:,\d{3})*)(?:\.(\d+))?( ?(?:M\b|k\b|万|亿))?")
SCALE = {"": 1, "k": 1e3, "万": 1e4, "M": 1e6, "亿": 1e8}
LANGUAGES = ("", ".zh")


def figures(text: str) -> Iterator[tuple[str, float, float]]:
    """The numbers of a text: as written, their value, and what one in their last digit is worth."""
    for found in NUMBER.finditer(text):
        integer, fraction, unit = (
            found[1].replace(",", ""),
            found[2] or "",
            (found[3] or "").strip(),
        )
        scale = SCALE[unit]
        yield found[0], float(f"{integer}.{fraction}") * scale, scale / 10 ** len(fraction)


def without_source(text: str, source: str) -> list[str]:
    """The figures of a text that no number of the source rounds to."""
    known = [value for _, value, _ in figures(source)]
    return [
        written
        for written, value, unit in figures(text)
        if not any(abs(value - other) <= unit * 0.501 for other in known)
    ]


def rows(page: str, columns: int) -> list[list[str]]:
    """The cells of every line of a page's tables that have so many columns, headings left out."""
    lines = re.findall(r"^\| (.*) \|$", read(page), re.MULTILINE)
    cells = [line.split(" | ") for line in lines]
    return [row for row in cells if len(row) == columns and row[0] not in ("claim", "结论")]


def test_a_figure_must_round_to_its_source() -> None:
    source = "274,765,152 tokens, 2.793 bits, 1.06 M"
    assert without_source("275M tokens at 2.79, 2.75 亿, 106 万", source) == []
    assert without_source("276M tokens at 2.78", source) == ["276M", "2.78"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_results_are_those_of_the_log(language: str) -> None:
    page = f"docs/results{language}.md"
    found = rows(page, 4)
    assert len(found) >= 20
    for claim, figure, _, _ in found:
        logs = re.findall(r"\((log/[\w.-]+)\)", claim)
        assert logs, f"{page}: {claim} has no log"
        source = "\n".join(read(f"docs/{log}") for log in logs)
        assert without_source(figure, source) == [], f"{page}: {claim}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_readmes_figures_are_results(language: str) -> None:
    page = f"README{language}.md"
    results = "\n".join(" ".join(row) for row in rows(f"docs/results{language}.md", 4))
    section = re.search(r"^## (?:Measured|实测)\n(.*?)^## ", read(page), re.MULTILINE | re.DOTALL)
    assert section
    measured = re.findall(r"^\| (.*?) \| (.*?) \| .* \|$", section[1], re.MULTILINE)
    for name, result in measured:
        assert without_source(f"{name} {result}", results) == [], f"{page}: {name}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_guides_demo_is_that_of_the_log(language: str) -> None:
    page = f"docs/guide{language}.md"
    section = re.search(r"^## (?:The demo|演示)\n(.*?)^## ", read(page), re.MULTILINE | re.DOTALL)
    assert section
    logs = re.findall(r"\(log/([\w.-]+)\)", section[1])
    assert logs, f"{page}: the demo's figures have no log"
    source = "\n".join(read(f"docs/log/{PurePosixPath(log)}") for log in logs)
    table = re.findall(r"^\| .*\d\.\d.*\|$", section[1], re.MULTILINE)
    assert len(table) == 3
    assert [w for line in table for w in without_source(line, source)] == []
