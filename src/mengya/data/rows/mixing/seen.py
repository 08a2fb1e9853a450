"""Tokens of the first n rows of an endless sequence of epochs, by source: what a run has seen so far.

Takes the permutation of an epoch and the tokens of every stored row. Pure in n; it remembers where it was
last asked, so that a log costs no more than the rows since its last line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


class SeenTokens:
    """Of stored rows that lie source after source, `first` [sources + 1] where each begins.

    Args:
        permutation: epoch -> [rows] which stored row comes when.
        tokens: [rows] of every stored row.
    """

    def __init__(
        self,
        permutation: Callable[[int], np.ndarray],
        tokens: np.ndarray,
        first: Sequence[int] | np.ndarray,
    ) -> None:
        self._permutation, self._tokens, self._first = permutation, tokens, np.asarray(first)
        all_rows = np.concatenate([np.zeros(1, np.int64), np.cumsum(tokens, dtype=np.int64)])
        self._epoch = np.diff(all_rows[self._first])
        self._at = (0, 0, np.zeros(len(self._epoch), np.int64))  # epoch, rows of it, their tokens

    def __call__(self, rows: int) -> np.ndarray:
        """[sources] int64, tokens of every source in the first `rows` rows."""
        epoch, inside = divmod(rows, len(self._tokens))
        at, begin, seen = self._at
        if at != epoch or begin > inside:
            begin, seen = 0, np.zeros(len(self._epoch), np.int64)
        if begin < inside:
            stored = self._permutation(epoch)[begin:inside]
            source = np.searchsorted(self._first, stored, side="right") - 1
            new = np.bincount(source, self._tokens[stored], minlength=len(self._epoch))
            seen = seen + new.astype(np.int64)  # of a sum of integers below 2^53: exact
        self._at = (epoch, inside, seen)
        return epoch * self._epoch + seen
