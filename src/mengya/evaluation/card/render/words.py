"""What the card says, in Chinese and English; templates/words.yaml has the sentences."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from mengya.runtime.yaml_values import load_yaml

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")
Both = Mapping[Language, str]


def say(key: str, **fields: Both | str | int) -> dict[Language, str]:
    """A sentence in both languages; a field may itself be in both.

    Raises:
        KeyError: there is no such sentence, or a field is missing.
    """
    sentence = _words()[key]
    return {
        language: sentence[language].format(
            **{n: v[language] if isinstance(v, Mapping) else v for n, v in fields.items()}
        )
        for language in LANGUAGES
    }


def figure_name(name: str) -> dict[Language, str]:
    """`reference_text/law` in words; parts without a word of their own stay as they are."""
    first, *parts = name.split("/")
    words = _words()
    named = [words["figure"].get(first, _plain(first))]
    named += [words["part"].get(part, _plain(part)) for part in parts]
    return {language: " · ".join(each[language] for each in named) for language in LANGUAGES}


def kind_name(kind: str) -> dict[Language, str]:
    """The kind of a stage; one without a word of its own by its name."""
    return _words()["kind"].get(kind) or dict.fromkeys(LANGUAGES, kind)


def chart_name(name: str) -> dict[Language, str]:
    """The title of a chart; a metric without a word of its own stays as it is."""
    if name.startswith("yardstick/"):
        return figure_name(name.removeprefix("yardstick/"))
    return _words()["chart"].get(name) or dict.fromkeys(LANGUAGES, name)


def joined(texts: list[dict[Language, str]]) -> dict[Language, str]:
    """A list in a sentence."""
    return {
        language: {"zh": "、", "en": ", "}[language].join(text[language] for text in texts)
        for language in LANGUAGES
    }


def _plain(text: str) -> dict[Language, str]:
    return dict.fromkeys(LANGUAGES, text.replace("_", " "))


@cache
def _words() -> dict[str, Any]:
    file = files("mengya.evaluation.card.render").joinpath("templates/words.yaml")
    return load_yaml(file.read_text(encoding="utf-8"))
