"""How many tokens texts take: sums over texts that arrive one after another, by any key.

Takes texts with a key; gives counts. Knows nothing of files and fields.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from mengya.tokenizer.load import plain_backend

_GROUP_CHARACTERS = 1 << 20  # tokenized at once


@dataclass
class Count:
    """texts: how many. longest: tokens of the longest."""

    texts: int = 0
    characters: int = 0
    tokens: int = 0
    longest: int = 0


class TokenCounter:
    """Adds up tokens by key; `counts` is complete after `flush`."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._backend = plain_backend(tokenizer)
        self.counts: dict[Hashable, Count] = {}
        self._waiting: list[tuple[Hashable, str]] = []
        self._size = 0

    def add(self, key: Hashable, text: str) -> None:
        """Count a text; control tokens written in it are text."""
        self.counts.setdefault(key, Count())
        self._waiting.append((key, text))
        self._size += len(text)
        if self._size >= _GROUP_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Tokenize what was added and is not counted yet."""
        texts = [text.encode("utf-8", "replace").decode() for _, text in self._waiting]
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        for (key, text), encoding in zip(self._waiting, encodings, strict=True):
            count = self.counts[key]
            count.texts += 1
            count.characters += len(text)
            count.tokens += len(encoding.ids)
            count.longest = max(count.longest, len(encoding.ids))
        self._waiting, self._size = [], 0
