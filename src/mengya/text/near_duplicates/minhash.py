"""MinHash signatures with one permutation, the estimate of the Jaccard similarity, and the keys of LSH.

The hash of an n-gram names one of P bins, and of each bin the smallest is kept (one permutation hashing: Li,
Owen and Zhang, NeurIPS 2012). That costs one pass over a text for any P, where P permutations take P passes.
Eight bits of each minimum are stored (b-bit minwise hashing: Li and Koenig, WWW 2010), 0 for an empty bin, so
a signature is uint8 [P]. Short texts leave bins empty: the estimate counts only bins that one of the two
texts fills, and is nearly exact for them; keys take the value of a filled bin in its place, the first of a
fixed random order (optimal densification: Shrivastava, ICML 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mengya.runtime.hashing import mix64
from mengya.text.near_duplicates.ngrams import hashed_ngrams

MAX_BANDS = 24  # keys of a text, 8 bytes each in memory
RECALL = 0.995  # probability that two texts at the threshold share a key
DEVIATIONS = 1.645  # below the threshold an estimate may lie: 95 % of those at the threshold pass
_PROBES = 64  # then the next filled bin is taken, which only texts of a few n-grams need
_EMPTY = np.uint32(0xFFFFFFFF)


def minhash_signatures(texts: Sequence[str], permutations: int, ngram: int) -> np.ndarray:
    """uint8 [N, P] of N texts."""
    bins = np.uint64(permutations)
    minima = np.full(len(texts) * permutations, _EMPTY, np.uint32)
    for owner, hashes in hashed_ngrams(texts, ngram):
        place = ((hashes >> np.uint64(32)) * bins >> np.uint64(32)).astype(np.int64)
        np.minimum.at(minima, owner * permutations + place, hashes.astype(np.uint32))
    values = (minima % np.uint32(255) + np.uint32(1)).astype(np.uint8)
    values[minima == _EMPTY] = 0
    return values.reshape(len(texts), permutations)


def bands_for(threshold: float, permutations: int) -> tuple[int, int]:
    """(bands B, bins R of each): the most selective keys that miss few pairs at the threshold."""
    rows, bands = 1, 1
    while True:
        missed = 1 - threshold ** (rows + 1)
        more = math.ceil(math.log(1 - RECALL) / math.log(missed)) if missed > 0 else 1
        if more > MAX_BANDS or more * (rows + 1) > permutations:
            return bands, rows
        rows, bands = rows + 1, more


def minhash_keys(signatures: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """uint32 [N, B] of uint8 [N, P]: two texts of similarity s share each with probability s**R."""
    chosen = _filled(signatures, bands * rows).reshape(len(signatures), rows, bands)
    key = np.broadcast_to(np.arange(1, bands + 1, dtype=np.uint64), (len(chosen), bands)).copy()
    for row in range(rows):
        key = mix64(key * np.uint64(257) + chosen[:, row])
    return (key >> np.uint64(32)).astype(np.uint32)


def similarities(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimates of the Jaccard similarity of pairs of signatures uint8 [M, P], and their standard deviation.

    That is for bins drawn without replacement from the common set of n-grams, whose size is estimated from
    the bins that stay empty: 0 where each n-gram has a bin for itself.
    """
    bins = left.shape[1]
    used = np.count_nonzero(left | right, axis=1)
    equal = np.count_nonzero((left == right) & (left != 0), axis=1)
    estimate = equal / np.maximum(used, 1)
    with np.errstate(divide="ignore"):
        ngrams = -bins * np.log(1 - used / bins)  # inf when all bins are used
    sampled = np.minimum(used / np.maximum(ngrams, 1), 1)
    spread = np.sqrt(estimate * (1 - estimate) / np.maximum(used, 1) * (1 - sampled))
    return estimate, spread


def near_minhash(left: np.ndarray, right: np.ndarray, threshold: float) -> np.ndarray:
    """Similarity float [M] of pairs that are near, else 0."""
    estimate, spread = similarities(left, right)
    return np.where(estimate + DEVIATIONS * spread >= threshold, estimate, 0.0)


def _filled(signatures: np.ndarray, count: int) -> np.ndarray:
    """uint8 [N, count], the first bins, an empty one with the value of the first filled of random others."""
    bins = signatures.shape[1]
    filled = signatures[:, :count].copy()
    known, slots = np.ascontiguousarray(signatures).reshape(-1), filled.reshape(-1)
    slot = np.flatnonzero((filled == 0) & signatures.any(axis=1, keepdims=True))
    for probe in range(1, _PROBES):
        if not len(slot):
            break
        text, place = np.divmod(slot, count)
        other = (mix64(np.arange(count) + count * probe) >> np.uint64(33)).astype(np.int64) % bins
        value = known.take(text * bins + other.take(place))
        slots[slot] = value
        slot = slot[value == 0]
    if len(slot):
        text, place = np.divmod(slot, count)
        slots[slot] = signatures[text, _next_filled(signatures[text], place)]
    return filled


def _next_filled(signatures: np.ndarray, place: np.ndarray) -> np.ndarray:
    """int64 [M], for each signature uint8 [M, P] its first filled bin from a place on, around the end."""
    bins = signatures.shape[1]
    turned = (place[:, None] + np.arange(bins)) % bins
    first = (np.take_along_axis(signatures, turned, axis=1) != 0).argmax(1)
    return (place + first) % bins
