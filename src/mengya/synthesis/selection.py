"""Which conversations stay: the first of equal ones. Counts by reason what does not, with examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from mengya.synthesis.conversation import MadeConversation
from mengya.text.duplicates import squeeze, text_hash
from mengya.text.near_duplicates.config import NearDuplicateConfig
from mengya.text.near_duplicates.seen import SeenTexts

_EXAMPLES = 10  # of every reason, in the report
_SHOWN = 300  # characters of a text there

NEAR = NearDuplicateConfig(threshold=0.7, ngram=3)  # questions are short


class Selection:
    """What was kept and dropped so far.

    Args:
        drops_near: whether questions are dropped that nearly equal an earlier one.

    Attributes:
        kept, turns: conversations and their answers.
        dropped: by reason; examples: the first ones of every reason.
    """

    def __init__(self, drops_near: bool = False) -> None:
        self._is_near = SeenTexts(NEAR) if drops_near else None
        self._seen: set[int] = set()
        self.kept = self.turns = 0
        self.dropped: Counter[str] = Counter()
        self.examples: dict[str, list[dict[str, Any]]] = {}

    def is_new(self, question: str) -> str | None:
        """duplicate or near_duplicate of a question before, else None: it is noted as seen then."""
        key = text_hash(squeeze(question))
        if key in self._seen:
            return "duplicate"
        self._seen.add(key)
        return "near_duplicate" if self._is_near is not None and self._is_near(question) else None

    def drop(self, reason: str, text: str, provenance: Mapping[str, Any]) -> None:
        """Count something that is not kept."""
        self.dropped[reason] += 1
        found = self.examples.setdefault(reason, [])
        if len(found) < _EXAMPLES:
            place = {name: provenance[name] for name in ("file", "line") if name in provenance}
            found.append({**place, "text": text[:_SHOWN]})

    def keeps(self, conversation: MadeConversation) -> bool:
        """Whether the conversation is kept: no other begins with its first question."""
        if (reason := self.is_new(conversation.first_question)) is not None:
            self.drop(reason, conversation.first_question, conversation.provenance)
            return False
        self.kept += 1
        self.turns += conversation.turns
        return True
