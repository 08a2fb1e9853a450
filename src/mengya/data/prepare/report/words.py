"""The words of report.html in Chinese and English, which the page holds side by side and shows one of.

Elements carry their language as `lang`, so that a style sheet chooses and no script has to run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup, escape

from mengya.runtime.yaml_values import load_yaml

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Said:
    """The same in both languages, as HTML."""

    zh: Markup
    en: Markup

    def __html__(self) -> str:
        if self.zh == self.en:
            return self.zh
        return f'<span lang="zh">{self.zh}</span><span lang="en">{self.en}</span>'


def say(name: str, **values: Any) -> Said:
    """The words of `name` with `values` filled in; those that are `Said` in their language."""
    words = _read("words.yaml")[name]
    return Said(*(_filled(words[language], values, language) for language in ("zh", "en")))


def say_reason(name: str) -> Said:
    """A reason or an edit: in Chinese what it means, and in both its name."""
    shown = escape(visible(name))
    meaning = _read("reasons.yaml").get(name)
    return Said(Markup(f"{meaning} {shown}") if meaning else shown, shown)


def visible(value: Any) -> Any:
    """What an expression of the template gives, without characters that a page cannot show."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _CONTROL.sub("\ufffd", value)
    return value


def _filled(words: str, values: dict[str, Any], language: str) -> Markup:
    said = {
        name: getattr(value, language) if isinstance(value, Said) else visible(value)
        for name, value in values.items()
    }
    return Markup(words).format(**said)  # our own words; the values are escaped


@cache
def _read(name: str) -> dict[str, Any]:
    file = files("mengya.data.prepare.report").joinpath("templates", name)
    return load_yaml(file.read_text(encoding="utf-8"))
