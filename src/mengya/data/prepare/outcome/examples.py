"""Examples of texts: those with the smallest hashes.

Which they are depends on the texts alone, not on the number of processes or a resume.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mengya.text.duplicates import text_hash

EXCERPT = 200  # characters of a text that are kept to be shown
EXAMPLES = 10  # of every kind


@dataclass(frozen=True, slots=True)
class Example:
    """The beginning of a text; of an edit the place that it changed, as it was `before` and is now."""

    hash: int
    file: str
    line: int
    text: str
    before: str | None = None


def edit_example(before: str, after: str, file: str, line: int) -> Example:
    """The place of the first change, with what stands around it."""
    start = max(_first_difference(before, after) - EXCERPT // 4, 0)
    shown = (text[start : start + EXCERPT] for text in (before, after))
    earlier, now = (f"…{text}" if start else text for text in shown)
    return Example(text_hash(before), file, line, now, earlier)


def place_example(text: str, part: str, file: str, line: int) -> Example:
    """A part of a text, with what stands around it."""
    start = max(text.find(part) - EXCERPT // 4, 0)
    shown = text[start : start + EXCERPT // 2]
    return Example(text_hash(text), file, line, f"…{shown}" if start else shown)


def _first_difference(a: str, b: str) -> int:
    """Length of what both begin with."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle - 1)
    return low


class Examples:
    """For every name at most `limit` examples of different texts, ordered by hash."""

    def __init__(self, limit: int = EXAMPLES) -> None:
        self.limit = limit
        self.by_name: dict[str, list[Example]] = {}

    def wants(self, name: str, text_hash: int) -> bool:
        """Whether an example with this hash would be kept."""
        chosen = self.by_name.get(name, [])
        if any(example.hash == text_hash for example in chosen):
            return False  # a copy; the first one stays
        return len(chosen) < self.limit or text_hash < chosen[-1].hash

    def add(self, name: str, example: Example) -> None:
        """Keep an example if it is among those with the smallest hashes."""
        if not self.wants(name, example.hash):
            return
        chosen = self.by_name.setdefault(name, [])
        chosen.append(example)
        chosen.sort(key=lambda one: one.hash)
        del chosen[self.limit :]

    def update(self, other: Examples) -> None:
        """Add all examples of `other`, which were found later."""
        for name, examples in other.by_name.items():
            for example in examples:
                self.add(name, example)

    def state(self) -> dict[str, list[dict[str, Any]]]:
        """As JSON; `of` reads it back."""
        return {name: [asdict(one) for one in chosen] for name, chosen in self.by_name.items()}

    @staticmethod
    def of(state: dict[str, list[dict[str, Any]]], limit: int) -> Examples:
        examples = Examples(limit)
        examples.by_name = {n: [Example(**one) for one in chosen] for n, chosen in state.items()}
        return examples
