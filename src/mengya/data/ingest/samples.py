"""What is done to a sample before it becomes tokens: edits, cleaning, reasons to drop it, hashes.

Takes and gives the samples of schema.py; what is done to the text in them is mengya.text. Knows nothing of
files or tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from mengya.data.ingest.schema import Conversation, Document, Preference, Sample
from mengya.runtime.hashing import mix64
from mengya.text.clean import CleanConfig, clean_text, too_long, too_short
from mengya.text.duplicates import squeeze, text_hash
from mengya.tokenizer.message import Message


def clean_sample(sample: Sample, config: CleanConfig) -> Sample:
    """The sample with every text in it cleaned."""
    return change_texts(sample, lambda text: clean_text(text, config))


def change_texts(sample: Sample, change: Callable[[str], str]) -> Sample:
    """The sample with every text in it changed: contents and reasoning; tool calls are data and stay."""
    if isinstance(sample, Document):
        return Document(change(sample.text))
    if isinstance(sample, Conversation):
        return replace(sample, messages=_texts(sample.messages, change))
    return replace(
        sample,
        prompt=_texts(sample.prompt, change),
        chosen=_texts(sample.chosen, change),
        rejected=_texts(sample.rejected, change),
    )


def filter_texts(sample: Sample) -> list[str]:
    """What filters judge: a document, or the contents of all turns but the system's, joined by line ends.

    A preference pair has two such texts: its sides say much the same, which is no repetition.
    """
    if isinstance(sample, Document):
        return [sample.text]
    if isinstance(sample, Conversation):
        return [_said(sample.messages)]
    return [_said([*sample.prompt, *side]) for side in (sample.chosen, sample.rejected)]


def learned_answers(sample: Sample) -> list[str]:
    """The answers of a chat that a loss is taken on; of a preference the chosen one. None of a document."""
    if isinstance(sample, Document):
        return []
    messages = sample.messages if isinstance(sample, Conversation) else sample.chosen
    return [message["content"] for message in messages if _is_learned(message)]


def asked(sample: Sample) -> str:
    """All that is not said by the assistant in a chat; nothing of a document."""
    if isinstance(sample, Document):
        return ""
    messages = sample.messages if isinstance(sample, Conversation) else sample.prompt
    return "\n".join(message["content"] for message in messages if message["role"] != "assistant")


def sample_characters(sample: Sample) -> int:
    """Characters of a document, or of the contents of every turn."""
    if isinstance(sample, Document):
        return len(sample.text)
    return sum(len(message["content"]) for message in _messages(sample))


def sample_turns(sample: Sample) -> int:
    """Assistant turns, those of the chosen side for a preference; none for a document."""
    if isinstance(sample, Document):
        return 0
    messages = (
        sample.messages if isinstance(sample, Conversation) else sample.prompt + sample.chosen
    )
    return sum(message["role"] == "assistant" for message in messages)


def excerpt(sample: Sample, characters: int) -> str:
    """The beginning of a document, or of the turns of a chat, each under its role."""
    if isinstance(sample, Document):
        return sample.text[:characters]
    if isinstance(sample, Conversation):
        turns = [(message["role"], message) for message in sample.messages]
    else:
        turns = [(message["role"], message) for message in sample.prompt]
        turns += [("chosen", message) for message in sample.chosen]
        turns += [("rejected", message) for message in sample.rejected]
    each = max(characters // max(len(turns), 1), characters // 4)
    lines = (f"{role}: {_beginning(message['content'], each)}" for role, message in turns)
    return "\n".join(lines)[:characters]


def drop_reason(sample: Sample, config: CleanConfig) -> str | None:
    """Why a cleaned sample is dropped, else None.

    The reasons: empty, too_short, too_long, empty_turn, nothing_learned (all flagged), same_answers.
    """
    if isinstance(sample, Document):
        return too_short(sample.text, config) or too_long(len(sample.text), config)
    if not all(map(_has_content, _messages(sample))):
        return "empty_turn"
    if isinstance(sample, Conversation) and not any(map(_is_learned, sample.messages)):
        return "nothing_learned"
    if isinstance(sample, Preference) and sample.chosen == sample.rejected:
        return "same_answers"
    return too_long(sample_characters(sample), config)


def train_on_last(sample: Conversation) -> Conversation:
    """The conversation with a loss on its last assistant turn only."""
    *earlier, last = sample.messages
    return replace(sample, messages=[*map(_not_learned, earlier), last])


def completions(sample: Preference) -> tuple[list[Message], list[Message]]:
    """Both sides as conversations in which no turn of the prompt is learned."""
    prompt = [_not_learned(message) for message in sample.prompt]
    return prompt + sample.chosen, prompt + sample.rejected


def sample_hashes(sample: Sample, exact: bool = False) -> tuple[int, int]:
    """(hash of the sample, hash that decides the validation split), 64 bits each.

    Texts are squeezed (see `squeeze`) unless the first hash is to be exact.

    Documents are split by themselves, chats by their first question, without system message and tools:
    neither other answers to a question nor other instructions around it put it into both splits.
    """
    form = str if exact else squeeze
    if isinstance(sample, Document):
        squeezed = text_hash(squeeze(sample.text))
        return (text_hash(sample.text) if exact else squeezed), squeezed
    messages = sample.messages if isinstance(sample, Conversation) else sample.prompt
    parts: list[Any] = [sample.tools, _texts(messages, form)]
    if isinstance(sample, Preference):
        parts += [_texts(sample.chosen, form), _texts(sample.rejected, form)]
    full = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return text_hash(full), text_hash(squeeze(first_question(sample)))


def first_question(sample: Conversation | Preference) -> str:
    """What the user says first; "" where no user speaks."""
    messages = sample.messages if isinstance(sample, Conversation) else sample.prompt
    return next((m["content"] for m in messages if m["role"] == "user"), "")


def full_text(sample: Sample) -> str:
    """A document, or the contents of all turns but the system's, of both sides of a preference."""
    if isinstance(sample, Document):
        return sample.text
    return _said(list(_messages(sample)))


def held_out(hashes: np.ndarray, fraction: float) -> np.ndarray:
    """bool, which of the uint64 `hashes` are for validation: about `fraction` of all possible ones."""
    if fraction <= 0:
        return np.zeros(len(hashes), bool)
    return mix64(hashes) < np.uint64(min(int(fraction * 2.0**64), 2**64 - 1))


def _messages(sample: Conversation | Preference) -> Iterator[Message]:
    if isinstance(sample, Conversation):
        yield from sample.messages
    else:
        yield from (*sample.prompt, *sample.chosen, *sample.rejected)


def _is_learned(message: Message) -> bool:
    return message["role"] == "assistant" and message.get("train", True)


def _not_learned(message: Message) -> Message:
    return {**message, "train": False} if message["role"] == "assistant" else message


def _has_content(message: Message) -> bool:
    return bool(
        message["content"].strip()
        or message.get("tool_calls")
        or message["role"] in ("system", "tool")
    )


def _said(messages: list[Message]) -> str:
    return "\n".join(message["content"] for message in messages if message["role"] != "system")


def _beginning(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[: characters - 1]}…"


def _texts(messages: list[Message], change: Callable[[str], str]) -> list[Message]:
    """The messages with their content and reasoning changed."""
    texts = ("content", "reasoning_content")
    return [{k: change(v) if k in texts else v for k, v in m.items()} for m in messages]
