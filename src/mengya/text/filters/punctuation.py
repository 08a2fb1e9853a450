"""Lists of words or links and cut texts, by the punctuation of their lines. Code does not count."""

from __future__ import annotations

import re

from mengya.text.filters.config import PunctuationFilter
from mengya.text.filters.markdown import prose_lines

MAX_FUNCTION_SHARE = 0.015
_BULLETS = ("- ", "* ", "+ ", "•", "●", "·", "■", "◆", "▪", "►", "▶", "※", "◎", "★", "☆")
_ELLIPSES = ("…", "...", "。。。")
_MARK = re.compile(r"[。．！？；，、：,;!?:”」』）)]|\.(?=\s|$)")
# Words that sentences and verse, old and new, cannot do without; lists of names and menus can.
_FUNCTION = re.compile(r"[的了是在不有我你他她这那一就也都和与之其而以于为无何此]")


class Punctuation:
    """unpunctuated, bullet_lines or ellipsis_lines."""

    def __init__(self, config: PunctuationFilter) -> None:
        self._config = config

    def __call__(self, text: str) -> str | None:
        """The reason for which the text is dropped, or None."""
        config = self._config
        lines = prose_lines(text)
        size = sum(map(len, lines))
        if size < config.min_characters:
            return None
        if _is_list(_bare_lines(lines, (1 - config.max_unpunctuated) * size)):
            return "unpunctuated"
        if len(lines) < config.min_lines:
            return None
        if sum(line.startswith(_BULLETS) for line in lines) > config.max_bullet_lines * len(lines):
            return "bullet_lines"
        if sum(line.endswith(_ELLIPSES) for line in lines) > config.max_ellipsis_lines * len(lines):
            return "ellipsis_lines"
        return None


def _bare_lines(lines: list[str], enough: float) -> list[str]:
    """The lines without punctuation; none once those that have some hold `enough` characters."""
    bare, marked = [], 0
    for line in lines:
        if not _MARK.search(line):
            bare.append(line)
            continue
        marked += len(line)
        if marked >= enough:
            return []
    return bare if enough else []


def _is_list(lines: list[str]) -> bool:
    words = sum(len(_FUNCTION.findall(line)) for line in lines)
    return words < MAX_FUNCTION_SHARE * sum(map(len, lines))
