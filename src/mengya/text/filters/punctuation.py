"""Lists of words or links and cut texts, by the punctuation of their lines. Code does not count."""

from __future__ import annotations

import re

from mengya.text.filters.config import PunctuationFilter
from mengya.text.filters.markdown import prose_lines

_BULLETS = ("- ", "* ", "+ ", "•", "●", "·", "■", "◆", "▪", "►", "▶", "※", "◎", "★", "☆")
_ELLIPSES = ("…", "...", "。。。")
# Spaces between clauses of four characters or more stand for marks; words of a menu are shorter.
_MARK = re.compile(
    r"[。．！？；，、：,;!?:”」』）)]|\.(?=\s|$)|[\u4e00-\u9fff]{4}[ \u3000]+[\u4e00-\u9fff]{3}"
)


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
        bare = sum(len(line) for line in lines if not _MARK.search(line))
        if bare > config.max_unpunctuated * size:
            return "unpunctuated"
        if len(lines) < config.min_lines:
            return None
        if sum(line.startswith(_BULLETS) for line in lines) > config.max_bullet_lines * len(lines):
            return "bullet_lines"
        if sum(line.endswith(_ELLIPSES) for line in lines) > config.max_ellipsis_lines * len(lines):
            return "ellipsis_lines"
        return None
