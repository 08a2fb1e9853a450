"""The index finds exactly the earlier texts that share a key, however they were added."""

from __future__ import annotations

import numpy as np
import pytest

from mengya.text.near_duplicates import index
from mengya.text.near_duplicates.index import KeyIndex


def test_candidates_are_those_of_a_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "SHARED", 3)
    rng = np.random.default_rng(0)
    made, count = KeyIndex(), 0
    known: dict[int, list[int]] = {}
    for size in (1, 40, 0, 7, 100, 3, 60, 60):
        bands = np.array([0, 20, 40, 2**32 - 15])  # no text has a key twice
        keys = (rng.integers(0, 15, (size, 4)) + bands).astype(np.uint32)
        expected, expected_within = set(), set()
        within: dict[int, list[int]] = {}
        for row, of_row in enumerate(keys.tolist()):
            for key in of_row:
                expected |= {(row, number) for number in known.get(key, [])}
                expected_within |= {(row, other) for other in within.get(key, [])[:3]}
                within.setdefault(key, []).append(row)
        found = made.candidates(keys)
        assert list(map(tuple, found.earlier.tolist())) == sorted(expected)
        assert list(map(tuple, found.within.tolist())) == sorted(expected_within)
        made.add(keys)
        for key, rows in within.items():
            known[key] = (known.get(key, []) + [count + row for row in rows])[:3]
        count += size
    assert len(made) == count


def test_how_texts_are_split_into_calls_changes_nothing() -> None:
    keys = np.random.default_rng(1).integers(0, 500, (2000, 5)).astype(np.uint32)
    found = []
    for size in (1, 30, 2000):
        made = KeyIndex()
        for first in range(0, 2000, size):
            made.add(keys[first : first + size])
        found.append(made.candidates(keys).earlier)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
