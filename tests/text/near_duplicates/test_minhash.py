"""The estimate of the Jaccard similarity, and that texts at the threshold share a key."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mengya.text.near_duplicates import ngrams
from mengya.text.near_duplicates.minhash import (
    bands_for,
    minhash_keys,
    minhash_signatures,
    near_minhash,
    similarities,
)
from mengya.text.near_duplicates.ngrams import hashed_ngrams
from tests.text.near_duplicates.texts import changed, jaccard, text


@pytest.mark.parametrize(("length", "error"), [(30, 0.02), (120, 0.02), (3000, 0.025)])
def test_the_estimate_is_the_exact_similarity(length: int, error: float) -> None:
    rng = random.Random(length)
    originals = [text(rng, length) for _ in range(200)]
    copies = [changed(rng, one, length // 80) + text(rng, rng.randint(1, 3)) for one in originals]
    exact = np.array([jaccard(a, b) for a, b in zip(originals, copies, strict=True)])
    left, right = (minhash_signatures(texts, 256, 5) for texts in (originals, copies))
    estimate, spread = similarities(left, right)
    assert abs((estimate - exact).mean()) < 0.005
    assert (estimate - exact).std() < error and spread.mean() < error
    near = exact >= 0.85
    assert near.sum() > 100
    keys = [minhash_keys(one, *bands_for(0.85, 256)) for one in (left, right)]
    assert (keys[0] == keys[1]).any(1)[near].mean() > 0.96
    assert (near_minhash(left, right, 0.85) > 0)[near].mean() > 0.96
    others = np.roll(right, 1, axis=0)
    assert not near_minhash(left, others, 0.85).any()


def test_bands_fit_and_find_what_is_at_the_threshold() -> None:
    for threshold in (0.5, 0.7, 0.85, 0.95, 1.0):
        for permutations in (64, 256, 1024):
            bands, rows = bands_for(threshold, permutations)
            assert bands * rows <= permutations and 1 - (1 - threshold**rows) ** bands >= 0.99


def test_white_space_and_case_change_nothing() -> None:
    texts = ["Hello 世界，今天天气很好", "hello世界，\n今天 天气很好"]
    one, two = minhash_signatures(texts, 256, 5)
    assert np.array_equal(one, two) and one.any()


def test_texts_of_few_characters() -> None:
    signatures = minhash_signatures(["", "好", "好的", "好"], 64, 5)
    assert not signatures[0].any() and signatures[1].any()
    assert np.array_equal(signatures[1], signatures[3])
    assert near_minhash(signatures[:1], signatures[:1], 0.85)[0] == 0  # nothing is near to nothing
    assert near_minhash(signatures[1:2], signatures[2:3], 0.85)[0] == 0


def test_slabs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    texts = [text(rng, length) for length in (0, 3, 5, 100, 7, 64)]
    full = minhash_signatures(texts, 64, 5)
    counts = [len(set(hashes.tolist())) for _, hashes in hashed_ngrams([texts[3]], 5)]
    assert counts == [len({texts[3][i : i + 5] for i in range(96)})]
    monkeypatch.setattr(ngrams, "SLAB", 10)
    assert np.array_equal(minhash_signatures(texts, 64, 5), full)
