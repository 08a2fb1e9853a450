"""Text of lines or paragraphs that stood above already."""

from __future__ import annotations

import re
from collections import Counter

from mengya.text.filters.config import LinesFilter, ParagraphsFilter
from mengya.text.filters.markdown import prose, prose_lines

_LETTER = re.compile(r"[^\W\d_]")
_BLANK_LINES = re.compile(r"\n\s*\n")


class RepeatedLines:
    """repeated_lines."""

    def __init__(self, config: LinesFilter) -> None:
        self._config = config

    def __call__(self, text: str) -> str | None:
        """The reason for which the text is dropped, or None."""
        share = repeated_share(prose_lines(text), self._config.allowed)
        return "repeated_lines" if share > self._config.max_share else None


class RepeatedParagraphs:
    """repeated_paragraphs."""

    def __init__(self, config: ParagraphsFilter) -> None:
        self._config = config

    def __call__(self, text: str) -> str | None:
        """The reason for which the text is dropped, or None."""
        if "\n" not in text:
            return None
        paragraphs = [part.strip() for part in _BLANK_LINES.split(prose(text))]
        share = repeated_share(paragraphs, self._config.allowed)
        return "repeated_paragraphs" if share > self._config.max_share else None


def repeated_share(parts: list[str], allowed: int) -> float:
    """The share of characters in parts that stood before more than `allowed` times.

    Rows of Markdown tables and parts without a letter (rules, rows of numbers, braces) do not count.
    """
    counts = Counter(parts)
    if len(counts) == len(parts):
        return 0.0
    repeated = sum(
        (count - allowed) * len(part)
        for part, count in counts.items()
        if count > allowed and not part.startswith("|") and _LETTER.search(part)
    )
    return repeated / max(1, sum(map(len, parts)))
