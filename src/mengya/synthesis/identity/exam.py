"""Twenty ways of asking a model who it is, none of which it was trained on, and how an answer is judged.

A question is `{"id", "topic", "turns": [user turns; the model answers each], "say": [...], "deny": [...]}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mengya.synthesis.identity.config import IdentityConfig
from mengya.synthesis.identity.fill import fill
from mengya.synthesis.identity.parts import load_exam


def exam_questions(config: IdentityConfig) -> list[dict[str, Any]]:
    """The questions for this name and author."""
    facts = {"name": config.name, "author": config.author}
    own = [_bare(value) for value in facts.values()]

    def asks_for(item: Mapping[str, Any]) -> bool:
        """Whether a question names what the model is: nothing is to be denied then."""
        return any(name in _bare(turn) for turn in item["turns"] for name in own)

    return [
        {
            "id": f"identity-{number:02}",
            "topic": item["topic"],
            "turns": item["turns"],
            "say": [fill(text, facts, spaced=False) for text in item["say"]],
            "deny": [
                text
                for text in item.get("deny", [])
                if not asks_for(item) and not any(name in _bare(text) for name in own)
            ],
        }
        for number, item in enumerate(load_exam(), 1)
    ]


def is_right(question: Mapping[str, Any], answer: str) -> bool:
    """Whether the last answer says all that it should, and nothing that it should not."""
    bare = _bare(answer)
    return all(_bare(text) in bare for text in question["say"]) and not any(
        _bare(text) in bare for text in question["deny"]
    )


def _bare(text: str) -> str:
    return "".join(text.split()).casefold()
