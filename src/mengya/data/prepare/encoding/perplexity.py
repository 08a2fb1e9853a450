"""The filter by how well a model predicts a text: bounds on bits per character.

What measures them comes from above this package: a callable that loads a model once in every process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mengya.data.prepare.encoding.plan import BatchFilter

Scorer = Callable[[list[str]], list[float]]
"""Texts -> bits per character of each."""


@dataclass(frozen=True, slots=True)
class PerplexityBounds:
    """low_perplexity or high_perplexity: bits per character out of bounds. Called, it gives the filter."""

    make_scorer: Callable[[], Scorer]
    min_bits_per_char: float | None
    max_bits_per_char: float | None

    def __call__(self) -> BatchFilter:
        scorer = self.make_scorer()
        return lambda texts: [self._reason(bits) for bits in scorer(texts)]

    def _reason(self, bits: float) -> str | None:
        if self.min_bits_per_char is not None and bits < self.min_bits_per_char:
            return "low_perplexity"
        if self.max_bits_per_char is not None and bits > self.max_bits_per_char:
            return "high_perplexity"
        return None
