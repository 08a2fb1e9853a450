"""Both methods behind one interface: texts -> signatures -> keys, pairs of signatures -> similarity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mengya.text.near_duplicates.config import NearDuplicateConfig
from mengya.text.near_duplicates.minhash import (
    bands_for,
    minhash_keys,
    minhash_signatures,
    near_minhash,
)
from mengya.text.near_duplicates.simhash import near_simhash, simhash_keys, simhash_signatures


def signatures(texts: Sequence[str], config: NearDuplicateConfig) -> np.ndarray:
    """uint8 [N, config.signature_bytes]."""
    if config.method == "simhash":
        return simhash_signatures(texts, config.ngram)
    return minhash_signatures(texts, config.permutations, config.ngram)


def keys(signatures: np.ndarray, config: NearDuplicateConfig) -> np.ndarray:
    """uint32 [N, B] of uint8 [N, P]."""
    if config.method == "simhash":
        return simhash_keys(signatures)
    return minhash_keys(signatures, *bands_for(config.threshold, config.permutations))


def near(left: np.ndarray, right: np.ndarray, config: NearDuplicateConfig) -> np.ndarray:
    """The similarity float [M] of pairs of signatures uint8 [M, P] that are near-duplicates, else 0."""
    if config.method == "simhash":
        return near_simhash(left, right, config.distance)
    return near_minhash(left, right, config.threshold)
