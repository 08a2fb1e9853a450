"""Text with too few or too many letters."""

from __future__ import annotations

from mengya.text.filters.config import LengthFilter
from mengya.text.scripts import SCRIPTS, script_counts

_NO_LETTERS = [SCRIPTS.index(name) for name in ("garbage", "punctuation", "symbol", "space")]


class Length:
    """too_few_letters or too_many_letters."""

    def __init__(self, config: LengthFilter) -> None:
        self._min, self._max = config.min_letters, config.max_letters

    def __call__(self, text: str) -> str | None:
        """The reason for which the text is dropped, or None."""
        counts = script_counts(text)
        letters = len(text) - int(counts[_NO_LETTERS].sum())
        if letters < self._min:
            return "too_few_letters"
        return "too_many_letters" if self._max is not None and letters > self._max else None
