"""Ways of asking a model who it is, none of which `mengya identity` trains on, and how an answer is judged.

A question is `{"id", "topic", "turns": [user turns; the model answers each], "say": [...], "deny": [...]}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mengya.runtime.yaml_values import load_yaml
from mengya.text.identity.fill import fill, slots

_FILE = Path(__file__).with_name("exam.yaml")


def exam_questions(name: str | None, author: str | None) -> list[dict[str, Any]]:
    """The questions for a model of this name and author; what is None need not be said."""
    facts = {slot: value for slot, value in (("name", name), ("author", author)) if value}
    own = [bare(value) for value in facts.values()]

    def asks_for(item: Mapping[str, Any]) -> bool:
        """Whether a question names what the model is: nothing is to be denied then."""
        return any(value in bare(turn) for turn in item["turns"] for value in own)

    return [
        {
            "id": f"identity-{number:02}",
            "topic": item["topic"],
            "turns": item["turns"],
            "say": [
                fill(text, facts, spaced=False)
                for text in item["say"]
                if slots(text) <= facts.keys()
            ],
            "deny": [
                text
                for text in item.get("deny", [])
                if not asks_for(item) and not any(value in bare(text) for value in own)
            ],
        }
        for number, item in enumerate(_items(), 1)
    ]


def is_right(question: Mapping[str, Any], answer: str) -> bool:
    """Whether the last answer says all that it should, and nothing that it should not."""
    return all(says(text, answer) for text in question["say"]) and not any(
        says(text, answer) for text in question["deny"]
    )


def says(text: str, answer: str) -> bool:
    """Whether the answer has the text in it, white space and case apart."""
    return bare(text) in bare(answer)


def bare(text: str) -> str:
    return "".join(text.split()).casefold()


@cache
def _items() -> list[dict[str, Any]]:
    return load_yaml(_FILE.read_text(encoding="utf-8"))
