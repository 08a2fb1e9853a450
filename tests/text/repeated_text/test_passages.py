"""Passages have the same hash wherever they stand, and their removal leaves the rest."""

from __future__ import annotations

import random

import numpy as np

from mengya.text.repeated_text.config import RepeatedTextConfig
from mengya.text.repeated_text.passages import passages, without
from tests.text.near_duplicates.texts import text

LINES = RepeatedTextConfig(min_characters=20)
WINDOWS = RepeatedTextConfig(unit="substring", min_characters=50)


def test_long_lines_are_equal_but_for_white_space_and_case() -> None:
    long = "Abc" + "长" * 20
    found = passages(f"短的一行\n{long}\n\n  abc {'长' * 20}", LINES)
    assert len(found.hashes) == 2 and found.hashes[0] == found.hashes[1]
    assert found.starts[0] == 5 and found.ends[0] == 5 + len(long) + 1
    assert not len(passages("", LINES).hashes) and not len(passages("长" * 19, LINES).hashes)


def test_a_line_takes_the_blank_line_before_the_next_with_it() -> None:
    common = "共" * 30
    for before, after in (
        (f"{common}\n\n正文", "正文"),
        (f"头\n\n{common}\n\n正文", "头\n\n正文"),
        (f"头\n{common}\n尾", "头\n尾"),
        (f"头\n\n{common}", "头\n\n"),
        (f"头\n\n\n\n尾\n{common}", "头\n\n\n\n尾\n"),
    ):
        found = passages(before, LINES)
        assert without(before, found, np.ones(1, bool)) == after


def test_common_runs_are_found_wherever_they_stand() -> None:
    rng = random.Random(0)
    left = []
    for _ in range(100):
        common = text(rng, 150)
        one, two = (text(rng, rng.randint(0, 300)) for _ in range(2))
        ours = passages(one + common + two, WINDOWS)
        theirs = passages(text(rng, 99) + common + text(rng, 20), WINDOWS)
        chosen = np.isin(ours.hashes, theirs.hashes)
        rest = without(one + common + two, ours, chosen)
        assert rest.startswith(one[:-40]) and rest.endswith(two[40:])
        left.append(len(rest) - len(one) - len(two))
    assert np.median(left) < 20 and sum(number > 100 for number in left) <= 1
    one, other = (passages(text(rng, 2000), WINDOWS) for _ in range(2))
    assert not np.isin(one.hashes, other.hashes).any()


def test_texts_shorter_than_a_window_have_no_passage() -> None:
    for short in ("", "短", "短" * 49):
        assert without(short, passages(short, WINDOWS), np.zeros(0, bool)) == short
