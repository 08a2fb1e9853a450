"""64 bits of a text, and that texts within three of them share a key."""

from __future__ import annotations

import random

import numpy as np

from mengya.runtime.hashing import mix64
from mengya.text.near_duplicates.ngrams import hashed_ngrams
from mengya.text.near_duplicates.simhash import near_simhash, simhash_keys, simhash_signatures
from tests.text.near_duplicates.texts import text


def test_bits_are_the_signs_of_sums_over_distinct_ngrams() -> None:
    rng = random.Random(0)
    texts = [text(rng, length) for length in (3, 0, 300, 2000)] + ["重复" * 500 + text(rng, 40)]
    for one, signature in zip(texts, simhash_signatures(texts, 5), strict=True):
        grams = {int(h) >> 24 for _, hashes in hashed_ngrams([one], 5) for h in hashes}
        hashes = mix64(np.array(sorted(grams), np.uint64) << np.uint64(24))
        bits = np.unpackbits(hashes.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1)
        expected = np.packbits((2 * bits.astype(int) - 1).sum(0) > 0)
        assert np.array_equal(signature, expected)


def test_three_wrong_bits_leave_a_common_key() -> None:
    rng = np.random.default_rng(0)
    left = rng.integers(0, 256, (500, 8), dtype=np.uint8)
    bits = np.unpackbits(left, axis=1)
    for row in bits:
        row[rng.choice(64, 3, replace=False)] ^= 1
    right = np.packbits(bits, axis=1)
    assert (simhash_keys(left) == simhash_keys(right)).any(1).all()
    assert np.allclose(near_simhash(left, right, 3), 1 - 3 / 64)
    assert not near_simhash(left, right, 2).any()
    assert not (simhash_keys(left) == simhash_keys(np.roll(right, 1, 0))).any()
