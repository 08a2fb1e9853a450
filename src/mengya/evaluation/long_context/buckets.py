"""Lengths in buckets: 0-4k, 4-8k, 8k+ by default."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


class Buckets:
    """From 0 to the first edge, from there to the next, and from the last one on.

    Attributes:
        names: 0-4k, 4-8k, 8k+; an edge that is no multiple of 1024 or 1000 is written out.
    """

    def __init__(self, edges: Sequence[int]) -> None:
        self._edges = list(edges)
        bounds = [0, *edges]
        self.names = [_range_name(low, high) for low, high in zip(bounds, edges, strict=False)] + [
            f"{_short(bounds[-1])}+"
        ]

    def __len__(self) -> int:
        return len(self.names)

    def number(self, length: int) -> int:
        """Which bucket a length is in; an edge begins the next one."""
        return bisect_right(self._edges, length)

    def name(self, length: int) -> str:
        return self.names[self.number(length)]

    def bounds(self, number: int) -> tuple[int, int | None]:
        """The lengths of a bucket, the second one excluded; None: there is no end."""
        bounds = [0, *self._edges, None]
        return bounds[number] or 0, bounds[number + 1]


def _short(length: int) -> str:
    for unit in (1024, 1000):
        if length and length % unit == 0:
            return f"{length // unit}k"
    return str(length)


def _range_name(low: int, high: int) -> str:
    first, last = _short(low), _short(high)
    if last.endswith("k"):
        first = first.removesuffix("k")
    return f"{first}-{last}"
