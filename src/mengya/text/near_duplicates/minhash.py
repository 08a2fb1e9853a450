"""MinHash signatures with one permutation, the estimate of the Jaccard similarity, and the keys of LSH.

The hash of an n-gram names one of P bins, and of each bin the smallest is kept (one permutation hashing: Li,
Owen and Zhang, NeurIPS 2012). That costs one pass over a text for any P, where P permutations take P passes.
Eight bits of each minimum are stored (b-bit minwise hashing: Li and Koenig, WWW 2010), 0 for an empty bin, so
a signature is uint8 [P]. Short texts leave bins empty: the estimate counts only bins that one of the two texts
fills, and is nearly exact for them; keys take the value of the next filled bin (densification by rotation:
Shrivastava and Li, ICML 2014).
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
    filled = _densified(signatures)
    # Bins of a band lie far apart: neighbours often have their value from the same filled bin.
    chosen = filled[:, : bands * rows].reshape(len(filled), rows, bands)
    key = np.broadcast_to(np.arange(1, bands + 1, dtype=np.uint64), (len(filled), bands)).copy()
    for row in range(rows):
        key = mix64(key * np.uint64(257) + chosen[:, row])
    return (key >> np.uint64(32)).astype(np.uint32)


def similarities(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimates of the Jaccard similarity of pairs of signatures uint8 [M, P], and their standard deviation.

    That is for bins drawn without replacement from the common set of n-grams, whose size is estimated from
    the bins that stay empty: 0 where each n-gram has a bin for itself.
    """
    bins = left.shape[1]
    used = ((left | right) != 0).sum(1)
    equal = ((left == right) & (left != 0)).sum(1)
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


def _densified(signatures: np.ndarray) -> np.ndarray:
    """Every empty bin with the value of the next filled one, around the end; all empty stays so."""
    bins = signatures.shape[1]
    twice = np.concatenate([signatures, signatures], axis=1)
    places = np.arange(2 * bins, dtype=np.int16)
    place = np.where(twice != 0, places, places[-1])
    following = np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1][:, :bins]
    return np.take_along_axis(twice, following, axis=1)
