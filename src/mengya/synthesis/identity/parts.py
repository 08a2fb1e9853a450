"""The parts that self-introductions are composed from, as written in the YAML files of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mengya.runtime.yaml_values import load_yaml

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Topic:
    """Ways to ask for one thing, each of which each of the answers fits.

    Attributes:
        bare: nothing is put before the question or behind the answer.
        closes: the answer may be followed by an offer to help.
        after: for a second turn, the topics that it may follow.
    """

    name: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    weight: float = 1.0
    bare: bool = False
    closes: bool = False
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Language:
    """The parts in one language.

    Attributes:
        others: (model, its maker); people and new_names: what fills {person} and {new_name}.
        small_talk: (question, answer) that may come before.
    """

    code: str
    topics: tuple[Topic, ...]
    others: tuple[tuple[str, str], ...]
    people: tuple[str, ...] = ()
    new_names: tuple[str, ...] = ()
    second_turns: tuple[Topic, ...] = ()
    openings: tuple[str, ...] = ("",)
    later_openings: tuple[str, ...] = ("",)
    closings: tuple[str, ...] = ("",)
    systems: tuple[str, ...] = ()
    named_systems: tuple[str, ...] = ()
    small_talk: tuple[tuple[str, str], ...] = ()


CHINESE = "zh"
OTHER_LANGUAGES = ("en", "zh-Hant", "ja", "ko", "fr", "de", "es", "ru")


@cache
def load_languages() -> dict[str, Language]:
    """All languages by their code, Chinese first."""
    chinese = _read("chinese")
    others = tuple((model, maker) for model, maker in chinese["others"])
    found = {CHINESE: _chinese(chinese, others)}
    for code, parts in _read("languages").items():
        topics = tuple(
            Topic(name, tuple(questions), tuple(parts["answers"][name]))
            for name, questions in parts["questions"].items()
        )
        people, names = tuple(parts.get("people", ())), tuple(parts.get("new_names", ()))
        latin = tuple(pair for pair in others if pair[0].isascii())
        found[code] = Language(code, topics, latin, people, names)
    return found


def _chinese(parts: dict[str, Any], others: tuple[tuple[str, str], ...]) -> Language:
    topics = tuple(_topic(name, values) for name, values in parts["topics"].items())
    second = tuple(
        _topic(f"second_turn_{number}", values)
        for number, values in enumerate(parts["second_turns"], 1)
    )
    lists = ("people", "new_names", "openings", "later_openings", "closings", "systems")
    lists = (*lists, "named_systems")
    talk = tuple((question, answer) for question, answer in parts["small_talk"])
    named = {name: tuple(parts[name]) for name in lists}
    return Language(CHINESE, topics, others, second_turns=second, small_talk=talk, **named)


def _topic(name: str, values: dict[str, Any]) -> Topic:
    return Topic(
        name,
        tuple(values["questions"]),
        tuple(values["answers"]),
        values.get("weight", 1.0),
        values.get("bare", False),
        values.get("closes", False),
        tuple(values.get("after", ())),
    )


def _read(name: str) -> Any:
    return load_yaml((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
