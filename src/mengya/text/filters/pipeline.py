"""All edits, then all filters: a text -> the edited text, and the reason for which it is dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from mengya.config import Config
from mengya.text.filters.advertisements import Advertisement
from mengya.text.filters.boilerplate import BoilerplateLines
from mengya.text.filters.config import FilterConfig
from mengya.text.filters.encodings import BrokenEncoding
from mengya.text.filters.html import HtmlRemains, remove_html
from mengya.text.filters.information import Information
from mengya.text.filters.lengths import Length
from mengya.text.filters.ngrams import RepeatedNgrams
from mengya.text.filters.pii import Pii
from mengya.text.filters.punctuation import Punctuation
from mengya.text.filters.repetition import RepeatedLines, RepeatedParagraphs
from mengya.text.filters.script_shares import ScriptShares
from mengya.text.filters.simplify import Simplify

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
        self.edits = list(_edits(config))
        self.filters: list[Filter] = [*_filters(config), *more]

    def edit(self, text: str) -> Edited:
        """Apply every edit."""
        by = []
        for name, edit in self.edits:
            edited = edit(text)
            if edited != text:
                by.append(name)
                text = edited
        return Edited(text, by)

    def reason(self, text: str) -> str | None:
        """The reason of the first filter that drops the text; None when all keep it."""
        return next((reason for keeps in self.filters if (reason := keeps(text))), None)


def _edits(config: FilterConfig) -> Iterator[tuple[str, Edit]]:
    """The edits that are on, in their order: tags first, since a line of a menu may hold some."""
    if config.html is not None and config.html.remove:
        yield "html", remove_html
    if config.boilerplate is not None and config.boilerplate.remove:
        yield "boilerplate", BoilerplateLines(config.boilerplate).edit
    if config.pii is not None and config.pii.action == "replace":
        yield "pii", Pii(config.pii).edit
    if config.simplify is not None:
        yield "simplify", Simplify(config.simplify)


def _filters(config: FilterConfig) -> Iterator[Filter]:
    """The filters that are on, in the order in which they are asked: those that name the cause first."""
    drop_pii = config.pii if config.pii is not None and config.pii.action == "drop" else None
    makers: list[tuple[Callable[[Any], Filter], Config | None]] = [
        (BrokenEncoding, config.encoding),
        (Length, config.length),
        (HtmlRemains, config.html),
        (ScriptShares, config.scripts),
        (BoilerplateLines, config.boilerplate),
        (Advertisement, config.advertisement),
        (RepeatedLines, config.repeated_lines),
        (RepeatedParagraphs, config.repeated_paragraphs),
        (RepeatedNgrams, config.repeated_ngrams),
        (Information, config.information),
        (Punctuation, config.punctuation),
        (Pii, drop_pii),
    ]
    return (make(section) for make, section in makers if section is not None)
