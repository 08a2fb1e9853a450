"""Hashes find what is equal, and a set of millions of them is a set."""

from __future__ import annotations

import numpy as np
import pytest

from mengya.text import duplicates
from mengya.text.duplicates import SeenHashes, squeeze, text_hash


def test_hashes_ignore_white_space_and_case() -> None:
    assert squeeze("Hello 世界\n") == squeeze("hello世 界") != squeeze("hello世界!")
    assert len({text_hash(str(i)) for i in range(10_000)}) == 10_000


def test_seen_hashes_is_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "RECENT", 50)  # many merges
    rng = np.random.default_rng(0)
    seen, reference = SeenHashes(), set()
    for _ in range(100):
        hashes = rng.integers(0, 2**64, 30, dtype=np.uint64)
        hashes[:15] = rng.integers(2**63, 2**63 + 300, 15, dtype=np.uint64)
        expected = []
        for value in hashes.tolist():
            expected.append(value not in reference)
            reference.add(value)
        assert seen.add(hashes).tolist() == expected
    assert len(seen) == len(reference)
    everything = np.array(list(reference), np.uint64)
    assert not SeenHashes(everything).add(everything[:30]).any()
