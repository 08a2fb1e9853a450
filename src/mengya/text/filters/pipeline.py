"""All edits, then all filters, in the order of the settings: a text -> the edited text, and why it is dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mengya.text.filters.config import FilterConfig
from mengya.text.filters.information import Information
from mengya.text.filters.lengths import Length
from mengya.text.filters.script_shares import ScriptShares

Filter = Callable[[str], str | None]
"""A text -> the reason for which it is dropped (a word such as `repeated_lines`), or None."""
Edit = Callable[[str], str]
"""A text -> the same text with something removed or replaced."""


class Edited(NamedTuple):
    """A text after all edits, and the names of those that changed it."""

    text: str
    by: list[str]


class TextFilters:
    """The edits and filters that a configuration switches on.

    Args:
        more: filters that come after those of the configuration, such as a user's own.
    """

    def __init__(self, config: FilterConfig, more: Sequence[Filter] = ()) -> None:
        self._edits: list[tuple[str, Edit]] = []
        made = (make(section) for make, section in _filters(config) if section is not None)
        self._filters: list[Filter] = [*made, *more]

    def edit(self, text: str) -> Edited:
        """Apply every edit."""
        by = []
        for name, edit in self._edits:
            edited = edit(text)
            if edited != text:
                by.append(name)
                text = edited
        return Edited(text, by)

    def reason(self, text: str) -> str | None:
        """The reason of the first filter that drops the text; None when all keep it."""
        return next((reason for keeps in self._filters if (reason := keeps(text))), None)


def _filters(config: FilterConfig) -> list[tuple[Callable[[Any], Filter], Any]]:
    """What makes each filter, and its section of the settings; in the order in which they are asked."""
    return [
        (Length, config.length),
        (ScriptShares, config.scripts),
        (Information, config.information),
    ]
