"""The table of `prepare` on 80 columns: numbers stand under their heads, no name is folded or cut."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from rich.console import Console

from mengya.data.prepare.outcome.counts import Kept, SourceCounts
from mengya.data.prepare.report.terminal import print_table

LONG = "/data/web/中文网页/2026-11-30/part-00012-of-00100-filtered-and-cleaned.jsonl.zst"


def counted(scale: int = 1) -> SourceCounts:
    kept = Kept(samples=912 * scale, tokens=123_456 * scale, characters=456_789 * scale)
    held = Kept(samples=12 * scale, tokens=1_000 * scale, characters=3_000 * scale)
    return SourceCounts(
        read=1_000 * scale, bad=3 * scale, kept={"train": kept, "validation": held},
        dropped=Counter(too_short=40 * scale, duplicate=33 * scale, never=0), edits=Counter(html=7),
    )  # fmt: skip


def shown(names: list[str], counts: list[SourceCounts], left_out: list[str]) -> list[str]:
    text = io.StringIO()
    print_table(Console(file=text, width=80), "prepare text: out", names, counts, left_out)
    return text.getvalue().splitlines()


@pytest.mark.parametrize("names", [["wiki", "百科"], ["wiki", LONG]])
def test_numbers_stand_under_their_heads(names: list[str]) -> None:
    lines = shown(names, [counted(), counted(10_000)], [])
    (head,) = [line for line in lines if line.endswith("characters")]
    rows = [line for line in lines if line.endswith("789") or line.endswith("7,890,000")]
    assert len(rows) == 2 and all(len(line) <= 80 for line in (head, *rows))
    assert len(head) == len(rows[0]) == len(rows[1])
    assert rows[1].split()[-7:] == [
        "10,000,000", "30,000", "730,000", "9,240,000", "120,000", "1,244,560,000", "4,597,890,000",
    ]  # fmt: skip


def test_a_long_name_stands_above_its_numbers() -> None:
    lines = shown(["wiki", LONG], [counted(), counted()], [])
    at = lines.index(f" {LONG}")
    assert lines[at + 1].split() == ["1,000", "3", "73", "924", "12", "124,456", "459,789"]
    assert lines[at - 2] == " wiki"


def test_a_chinese_name_takes_two_columns_a_character() -> None:
    lines = shown(["wiki", "新闻"], [counted(), counted()], [])
    rows = [line for line in lines if line.endswith("459,789")]
    assert [line.split()[0] for line in rows] == ["wiki", "新闻"]
    assert len(rows[0]) == len(rows[1]) + 2


def test_reasons_stand_below_the_table() -> None:
    lines = shown(["wiki"], [counted()], ["odd\x1b[31m.jsonl"])
    assert "wiki: dropped: too_short (40), duplicate (33)" in lines
    assert "wiki: edits (samples that they changed): html (7)" in lines
    assert "left out, of an unknown form: odd␛[31m.jsonl" in lines
    assert all("never" not in line for line in lines)
