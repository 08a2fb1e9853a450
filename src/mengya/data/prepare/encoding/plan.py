"""All that a process needs to know to encode chunks.

Takes the settings of a run; gives a value that is small enough to be sent to other processes and machines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from mengya.data.prepare.duplicates.repeated_text import RepeatedTextPlan
from mengya.data.prepare.duplicates.signing import Signing
from mengya.data.prepare.encoding.own_filters import OwnFilter
from mengya.data.prepare.exams.check import ExamItems
from mengya.text.clean import CleanConfig
from mengya.text.filters.config import FilterConfig

Kind = Literal["text", "conversation", "preference"]
TrainOn = Literal["all_turns", "last_turn"]
BatchFilter = Callable[[list[str]], list[str | None]]
"""Texts -> for each the reason to drop it, or None: for filters that are faster on many texts at once."""


@dataclass(frozen=True, slots=True)
class SourceForm:
    """How the records of a source are to be understood."""

    format: str | None = None
    field: str | list[str] = "text"
    columns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EncodingPlan:
    """All that a process needs to encode chunks, small enough to be sent to it.

    Attributes:
        tokenizer_path: the folder, read by processes that render conversations.
        text_tokenizer: for text, the tokenizer without control tokens as JSON, so that the processes need not
            load transformers (a quarter of a gigabyte each). text_ranks: the same for tiktoken, which is
            faster; None where it does not give the same ids.
        document_token: the id that opens and closes a text.
        train_on: which assistant turns of a conversation are learned.
        exact: whether samples are the same only when they are equal to the letter.
        filters: edits and filters of texts; None when there are none. own_filters: asked after them.
        fill: what is replaced in every text before all else, and by what.
        drop_placeholders: whether samples are dropped whose learned answers hold unfilled placeholders.
        batch_filters: called once in every process, each gives a filter that is asked after the others.
        signing: the signatures that near-duplicates are found by; None when nobody looks for them.
        repeated_text: passages that are collected, or removed; None for neither.
        exam_items: what is looked for after them; None for nothing.
    """

    kind: Kind
    tokenizer_path: str
    sources: list[SourceForm]
    clean: CleanConfig
    text_tokenizer: str = ""
    text_ranks: dict[bytes, int] | None = None
    document_token: int = -1
    train_on: TrainOn = "all_turns"
    exact: bool = False
    filters: FilterConfig | None = None
    own_filters: tuple[OwnFilter, ...] = ()
    fill: tuple[tuple[str, str], ...] = ()
    drop_placeholders: bool = False
    batch_filters: tuple[Callable[[], BatchFilter], ...] = ()
    signing: Signing | None = None
    repeated_text: RepeatedTextPlan | None = None
    exam_items: ExamItems | None = None


def plan_encoding(
    kind: Kind,
    tokenizer_path: str,
    sources: list[SourceForm],
    clean: CleanConfig,
    **more: Any,
) -> EncodingPlan:
    """The plan for a tokenizer folder; `more` are other attributes of `EncodingPlan`."""
    plan = EncodingPlan(kind, tokenizer_path, sources, clean, **more)
    if kind != "text":
        return plan
    from mengya.tokenizer.load import document_token_id, load_tokenizer, plain_backend
    from mengya.tokenizer.tiktoken_ids import tiktoken_ranks

    tokenizer = load_tokenizer(tokenizer_path)
    backend = plain_backend(tokenizer)
    return replace(
        plan,
        text_tokenizer=backend.to_str(),
        text_ranks=tiktoken_ranks(backend),
        document_token=document_token_id(tokenizer),
    )
