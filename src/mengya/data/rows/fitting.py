"""Which chats fit a row, and how much of them is used: no answer is ever cut.

A conversation longer than a row keeps its beginning (system message included) up to the end of the last
answer that fits; it is left out when no answer does. A preference pair is left out when both sides do not
fit one row. Text is not changed: it is cut into pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mengya.data.shards import TokenShards


@dataclass(frozen=True, slots=True)
class Fitting:
    """What is used of a shard folder at one sequence_length.

    Attributes:
        lengths: [documents] int64, tokens used of every document; 0 for those left out.
        shortened: conversations that lost their last turns.
        left_out: conversations, or pairs, that no row holds.
        samples: conversations or pairs (for text, documents) in all.
        needed: the sequence_length at which nothing would be shortened or left out.
    """

    lengths: np.ndarray
    shortened: int
    left_out: int
    samples: int
    needed: int

    def describe(self, kind: str, sequence_length: int) -> str | None:
        """A line for people; None when everything is used."""
        if not self.shortened + self.left_out:
            return None
        what = "pairs" if kind == "preference" else "conversations"
        parts = [f"{self.left_out:,} left out"] if self.left_out else []
        if self.shortened:
            parts.insert(0, f"{self.shortened:,} used up to their last answer that fits")
        share = (self.shortened + self.left_out) / self.samples
        return (
            f"of {self.samples:,} {what}, {' and '.join(parts)} ({share:.1%}), as they are "
            f"longer than a row of {sequence_length} tokens"
        )

    @property
    def remedy(self) -> str:
        """What to write to use everything."""
        return f"data.sequence_length={self.needed} holds all of them"


def fit_rows(shards: TokenShards, sequence_length: int) -> Fitting:
    """How much of every document is used; reads the masks of conversations that are too long."""
    lengths = shards.lengths.copy()
    if shards.kind == "preference":
        pairs = np.maximum(lengths - 1, 0).reshape(-1, 2).sum(1)
        too_long = pairs > sequence_length
        lengths[np.repeat(too_long, 2)] = 0
        return Fitting(lengths, 0, int(too_long.sum()), len(pairs), int(pairs.max(initial=0)))
    needed = int(lengths.max(initial=1)) - 1
    if shards.kind == "text":
        return Fitting(lengths, 0, 0, len(lengths), needed)
    too_long = np.flatnonzero(lengths - 1 > sequence_length)
    for document in too_long.tolist():
        lengths[document] = _end_of_answers(shards, document, sequence_length + 1)
    left_out = int((lengths[too_long] == 0).sum())
    return Fitting(lengths, len(too_long) - left_out, left_out, len(lengths), needed)


def _end_of_answers(shards: TokenShards, document: int, limit: int) -> int:
    """Tokens up to the end of the last complete answer within `limit`; 0 when there is none."""
    mask = shards.loss_mask(document, 0, limit + 1).astype(bool)  # one more: an answer may continue
    ends = np.flatnonzero(mask[:-1] & ~mask[1:])
    return int(ends[-1]) + 1 if len(ends) else 0
