"""Which well-known assistant a name belongs to.

A model of another maker that is called so would lie, and contradict itself when it is asked for others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mengya.runtime.yaml_values import load_yaml

_FILE = Path(__file__).with_name("known.yaml")
# Behind a name, without its marks: GPT-4o, Qwen2.5, DeepSeek V3, Kimi K2.
_VERSION = re.compile(r"[vrkm]?\d+[a-z]?", re.ASCII)


@dataclass(frozen=True)
class Known:
    """Assistants of one maker. names and makers: every way to write them."""

    names: tuple[str, ...]
    makers: tuple[str, ...]

    def is_made_by(self, author: str) -> bool:
        return _bare(author) in map(_bare, self.makers)


def known_assistant(name: str) -> Known | None:
    """Whose name it is, with or without a version; None for a name of one's own."""
    bare = _bare(name)
    for one in known_assistants():
        for own in map(_bare, one.names):
            rest = bare.removeprefix(own)
            if bare.startswith(own) and (not rest or _VERSION.fullmatch(rest)):
                return one
    return None


def _bare(text: str) -> str:
    return re.sub(r"[\s\-_·.]+", "", text).casefold()


@cache
def known_assistants() -> tuple[Known, ...]:
    """All of them."""
    entries = load_yaml(_FILE.read_text(encoding="utf-8"))
    return tuple(Known(tuple(entry["names"]), tuple(entry["makers"])) for entry in entries)
