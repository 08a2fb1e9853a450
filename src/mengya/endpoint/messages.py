"""What is asked and what comes back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

ChatMessage = dict[str, str]
"""{"role": "system" | "user" | "assistant", "content": text}."""

Problem = Literal["empty", "cut", "refused", "rejected"]
"""Why a reply is not what was asked for: no text; ended by max_tokens; declined or filtered by the endpoint;
the request itself was refused (400), for example as too long."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request: `id` is the caller's; the same id with other messages is another request."""

    id: str
    messages: list[ChatMessage]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of prompts and replies."""

    input: int = 0
    output: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.input + other.input, self.output + other.output)

    @property
    def total(self) -> int:
        return self.input + self.output


@dataclass(frozen=True, slots=True)
class Completion:
    """A reply that was paid for, or a request that the endpoint refused for good.

    Attributes:
        id: of the prompt.
        text: what the model wrote; of a `cut` reply its beginning.
        problem: None for a complete reply.
        detail: what the endpoint said of it.
        model: as the endpoint names it.
        usage_is_ours: whether the endpoint's count was missing or impossible, and this is our estimate.
    """

    id: str
    text: str
    problem: Problem | None = None
    detail: str = ""
    usage: Usage = Usage()
    model: str = ""
    usage_is_ours: bool = False


def most_input_tokens(messages: list[ChatMessage]) -> int:
    """More tokens than any tokenizer with bytes as its base makes of the messages and their template."""
    return 16 + sum(16 + len(message["content"].encode()) for message in messages)


def request_key(prompt: Prompt, model: str, sampling: dict[str, object]) -> str:
    """A name of all that decides the reply; where the endpoint is does not."""
    parts = [prompt.id, prompt.messages, model, sampling]
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
