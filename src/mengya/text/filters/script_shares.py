"""Text in the wrong script: too little Chinese, the wrong one of its two scripts, digits, garbage. Code
does not count."""

from __future__ import annotations

from mengya.text.filters.config import ScriptsFilter
from mengya.text.filters.markdown import prose
from mengya.text.scripts import count_scripts


class ScriptShares:
    """garbage, symbols, digits, foreign, few_han, latin, traditional or simplified."""

    def __init__(self, config: ScriptsFilter) -> None:
        self._config = config

    def __call__(self, text: str) -> str | None:
        """The reason for which the text is dropped, or None."""
        text = prose(text)
        counts, limits = count_scripts(text), self._config
        seen = len(text) - counts["space"]
        only_one = counts["traditional"] + counts["simplified"]
        foreign = counts["kana"] + counts["hangul"] + counts["other"]
        symbols = counts["punctuation"] + counts["symbol"]
        above = (
            ("garbage", counts["garbage"], seen, limits.max_garbage),
            ("symbols", symbols, seen, limits.max_symbols),
            ("digits", counts["digit"], seen, limits.max_digits),
            ("foreign", foreign, seen, limits.max_foreign),
            ("latin", counts["latin"], seen, limits.max_latin),
            ("traditional", counts["traditional"], only_one, limits.max_traditional),
            ("simplified", counts["simplified"], only_one, limits.max_simplified),
        )
        for reason, part, total, limit in above:
            if limit is not None and part > limit * total:
                return reason
        han = counts["han"] + only_one
        return "few_han" if han < limits.min_han * seen else None
