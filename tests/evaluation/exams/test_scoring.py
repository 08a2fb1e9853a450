"""Scores of written answers."""

from __future__ import annotations

import pytest

from mengya.evaluation.exams.scoring import cmath_score, cmrc_score


@pytest.mark.parametrize(
    ("text", "golden", "right"),
    [
        ("99-90=9，还剩9页。", "9", 1),
        ("答：１，０００元", "1000", 1),
        ("是3.50", "3.5", 1),
        ("是1/2", "0.5", 1),
        ("先有9，再有8", "9", 0),
        ("不知道", "9", 0),
        ("1/0", "9", 0),
        ("-3", "3", 0),
    ],
)
def test_cmath_takes_the_last_number(text: str, golden: str, right: int) -> None:
    assert cmath_score({"golden": golden}, [text]) == {"exact_match": right}


@pytest.mark.parametrize(
    ("text", "exact", "f1"),
    [
        ("《光荣》和 ω-Force。", 1, 1),
        ("光荣", 0, 2 * 1 * (2 / 5) / (1 + 2 / 5)),
        ("由光荣和别人", 0, 2 * (3 / 6) * (3 / 5) / (3 / 6 + 3 / 5)),
        ("", 0, 0),
        ("武田", 0, 0),
    ],
)
def test_cmrc_compares_without_punctuation(text: str, exact: float, f1: float) -> None:
    scores = cmrc_score({"answers": ["光荣和ω-force", "某某某某"]}, [text])
    assert scores == {"exact_match": exact, "f1": pytest.approx(f1)}
