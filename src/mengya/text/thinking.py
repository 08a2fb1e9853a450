"""What a reasoning model writes before its answer: a `<think>` block, which may lack its beginning."""

from __future__ import annotations

import re

_THINKING = re.compile(r"^.*?</think>|<think>.*", re.DOTALL)


def without_thinking(text: str) -> str:
    """The text without the reasoning before the answer; nothing of a reply that is still reasoning."""
    return _THINKING.sub("", text, count=1).strip()
