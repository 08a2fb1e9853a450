"""The order of rows in the first pass over a source: easy before hard, shuffled within tenths.

A row holds several documents; its key is their mean, each weighed by its tokens in the row. Packing is not
changed, so rows stay as full and every label is seen once.
"""

from __future__ import annotations

import numpy as np

from mengya.data.rows.mixing.config import Order
from mengya.data.rows.packing import Packing
from mengya.data.shards import TokenShards
from mengya.errors import UserError

TENTHS = 10


def first_pass(
    shards: TokenShards, used: np.ndarray, packing: Packing, order: Order, shuffled: np.ndarray
) -> np.ndarray:
    """[rows], a permutation: rows by key in `TENTHS` equal parts, each in the order of `shuffled`.

    Args:
        used: [documents] tokens of every document that rows hold.
        shuffled: [rows] the order without keys.
    """
    keys = _row_means(_difficulty(shards, used, order), packing)
    rising = shuffled[np.argsort(keys[shuffled], kind="stable")]
    tenth = np.empty(len(rising), np.int64)
    tenth[rising] = np.arange(len(rising)) * TENTHS // len(rising)
    return shuffled[np.argsort(tenth[shuffled], kind="stable")]


def check_order(shards: TokenShards, order: Order) -> None:
    """Refuse an order that the shards have nothing for.

    Raises:
        UserError: naming the folder and what to write.
    """
    if order == "few_turns_first" and shards.kind != "conversation":
        raise UserError(
            f"order few_turns_first: {shards.directory} holds {shards.kind} shards, which have no turns to "
            "count; write short_first, or leave the order out"
        )


def _difficulty(shards: TokenShards, used: np.ndarray, order: Order) -> np.ndarray:
    return used if order == "short_first" else shards.answers


def _row_means(values: np.ndarray, packing: Packing) -> np.ndarray:
    """[rows] float64, `values` of the documents of a row, weighed by their tokens there."""
    weighted = np.add.reduceat(packing.length * values[packing.document], packing.row_starts[:-1])
    return weighted / packing.row_tokens
