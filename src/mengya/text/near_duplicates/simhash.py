"""SimHash signatures of 64 bits and the keys that texts within a few bits share (Charikar, STOC 2002).

A bit is the sign of a sum over all n-grams, +1 where their hash has it and -1 else. Cheaper than MinHash in
memory, and stricter: 3 of 64 bits, as in the field (Manku, Jain and Das Sarma, WWW 2007), are a Jaccard
similarity of about 0.97.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np

from mengya.runtime.hashing import mix64
from mengya.text.near_duplicates.ngrams import hashed_ngrams

# For every byte its bits, one in each byte of a 64-bit word.
_COUNTERS = np.unpackbits(np.arange(256, dtype=np.uint8)).reshape(256, 8).view(np.uint64)[:, 0]
_SHORT = np.uint64(40)  # bits of a hash, next to the number of its text
_BLOCKS = np.array([0, 13, 26, 39, 52, 64])  # 3 wrong bits leave at least two of five blocks full


def simhash_signatures(texts: Sequence[str], ngram: int) -> np.ndarray:
    """uint8 [N, 8], 64 bits of each text."""
    sums = np.zeros((len(texts), 64), np.int64)
    for owner, hashes in map(_distinct, hashed_ngrams(texts, ngram)):
        if len(hashes):
            starts = np.flatnonzero(np.diff(owner, prepend=-1))
            counts = np.diff(starts, append=len(owner))
            sums[owner[starts]] += 2 * _set_bits(hashes, starts, counts) - counts[:, None]
    return np.packbits((sums > 0).astype(np.uint8), axis=1)


def _distinct(ngrams: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Each n-gram of a text once: else the rulers and blanks of a page decide what it resembles."""
    owner, hashes = ngrams
    first = owner[:1].sum()
    each = np.unique(
        (owner - first).astype(np.uint64) << _SHORT | hashes >> (np.uint64(64) - _SHORT)
    )
    return (each >> _SHORT).astype(np.int64) + first, mix64(each << (np.uint64(64) - _SHORT))


def _set_bits(hashes: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """int64 [N, 64]: how many of the hashes of each text (from `starts`, so many) have each bit.

    Eight counters of a byte are added at once, 255 hashes at a time.
    """
    runs = -(-counts // 255)
    text = np.repeat(np.arange(len(starts)), runs)
    first = np.cumsum(runs) - runs
    cuts = starts[text] + 255 * (np.arange(len(text)) - first[text])
    lanes = _COUNTERS[hashes.astype("<u8").view(np.uint8).reshape(-1, 8)]
    sums = np.add.reduceat(lanes, cuts, axis=0)
    return np.add.reduceat(sums.view(np.uint8).reshape(-1, 64), first, axis=0, dtype=np.int64)


def simhash_keys(signatures: np.ndarray) -> np.ndarray:
    """uint32 [N, 10]: two texts that differ in at most 3 bits share at least one."""
    bits = np.unpackbits(signatures, axis=1)
    blocks = [np.packbits(bits[:, a:b], axis=1) for a, b in pairwise(_BLOCKS)]
    words = [np.pad(b, ((0, 0), (0, 2 - b.shape[1]))).view("<u2")[:, 0] for b in blocks]
    keys = []
    for number, (one, two) in enumerate(combinations(words, 2)):
        joined = one.astype(np.uint64) << np.uint64(16) | two | np.uint64(number) << np.uint64(32)
        keys.append((mix64(joined) >> np.uint64(32)).astype(np.uint32))
    return np.stack(keys, axis=1)


def near_simhash(left: np.ndarray, right: np.ndarray, distance: int) -> np.ndarray:
    """The share of equal bits float [M] of pairs within `distance` bits, else 0."""
    different = np.bitwise_count(left ^ right).sum(1)
    return np.where(different <= distance, 1 - different / 64, 0.0)
