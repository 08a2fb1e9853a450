"""Which signatures the samples of a run need, and samples -> signatures.

Two can be needed: of the full sample, by which near-copies are dropped, and of what decides the split (the
first question of a chat), by which near-copies are kept in one split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mengya.data.ingest.samples import first_question, full_text
from mengya.data.ingest.schema import Document, Sample
from mengya.text.near_duplicates.config import NearDuplicateConfig
from mengya.text.near_duplicates.method import signatures


@dataclass(frozen=True, slots=True)
class Signing:
    """The signatures that are made: of full samples, and of what decides the split."""

    config: NearDuplicateConfig
    full: bool
    split: bool


def signing_for(
    config: NearDuplicateConfig, kind: str, validation_fraction: float
) -> Signing | None:
    """What a run needs; None for nothing at all.

    When near-copies of documents are dropped, none are left to be kept in one split. Chats are dropped by all
    their turns and split by their first question, so they need both.
    """
    drop = config.action == "drop"
    validation = config.action != "ignore" and validation_fraction > 0
    split = validation and not (drop and kind == "text")
    return Signing(config, drop, split) if drop or split else None


def sign(samples: Sequence[Sample], signing: Signing) -> tuple[np.ndarray, np.ndarray]:
    """(of the full, of what decides the split): uint8 [N, P] each, or [N, 0] when it is not needed."""
    unused = np.zeros((len(samples), 0), np.uint8)
    full = [full_text(sample) for sample in samples] if signing.full else []
    split = [_split_text(sample) for sample in samples] if signing.split else []
    return (
        signatures(full, signing.config) if signing.full else unused,
        signatures(split, signing.config) if signing.split else unused,
    )


def _split_text(sample: Sample) -> str:
    return sample.text if isinstance(sample, Document) else first_question(sample)
