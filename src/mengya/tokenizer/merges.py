"""The merges of a BPE vocabulary that is given as ranked pieces, as SentencePiece and tiktoken have it.

There any two neighbours are merged whose joined text is a piece, the piece of lowest rank first and the
leftmost of equals. `tokenizers` has ranked pairs instead: every pair that makes a piece is one, in the order
of the pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T", str, bytes)


def merges_of(ranks: Mapping[T, float]) -> list[tuple[T, T]]:
    """Every pair of pieces that makes a piece, in the order in which they are merged.

    Pairs that make the same piece compete only where it overlaps itself ("aaa" out of a, aa, a). The text
    before a merge is symbols of the left merged first, so the pair with the shorter left side stands left.
    """
    pairs = [
        (rank, cut, piece[:cut], piece[cut:])
        for piece, rank in ranks.items()
        for cut in range(1, len(piece))
        if piece[:cut] in ranks and piece[cut:] in ranks
    ]
    return [(left, right) for _, _, left, right in sorted(pairs)]
