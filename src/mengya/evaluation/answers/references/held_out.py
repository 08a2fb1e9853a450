"""Held-out conversations as questions with reference answers: from files in any format, or from shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import field_validator

from mengya.config import PathConfig
from mengya.data.ingest.messages import SchemaError
from mengya.data.ingest.reading.encoding import AUTO
from mengya.data.ingest.reading.read import read_records
from mengya.data.ingest.reading.records import BadLine, BadLines
from mengya.data.ingest.schema import CONVERSATION_FORMATS, Conversation, to_conversation
from mengya.data.shards import MANIFEST, TokenShards
from mengya.evaluation.answers.answer import Prompt
from mengya.evaluation.subject import Subject
from mengya.tokenizer.chat_template import chat_template_hash


class ReferenceSource(PathConfig):
    path: str
    """File, folder or glob of conversations; or a shard folder, such as OUT/validation of
    `mengya prepare kind=conversation`."""
    format: str | None = None
    """The format of the records, as `mengya prepare` names it; null finds it for each record."""
    encoding: str = AUTO
    """Encoding of the files; auto finds UTF-8, UTF-16, gb18030 and big5 for each."""

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str | None) -> str | None:
        if value is not None and value not in CONVERSATION_FORMATS:
            raise ValueError(f"{value!r} is not one of {', '.join(CONVERSATION_FORMATS)}")
        return value


@dataclass(frozen=True)
class Reference:
    """
    Attributes:
        id: where it stands: FILE:LINE, or SHARDS:NUMBER.
        prompt: all that comes before the last assistant turn; ids where it comes from shards.
        answer: that turn.
    """

    id: str
    prompt: Prompt
    answer: str


def read_references(
    source: ReferenceSource, subject: Subject, tokenizer_sha256: str, bad_lines: BadLines
) -> Iterator[Reference]:
    """Every conversation whose last assistant turn has text.

    Raises:
        UserError: no files, too many bad lines, or shards of another kind, tokenizer or chat template.
    """
    if not subject.chat:
        return  # it is asked none of them
    if (Path(source.path) / MANIFEST).is_file():
        yield from _of_shards(Path(source.path), subject, tokenizer_sha256)
        return
    for record in read_records(source.path, bad_lines, encoding=source.encoding):
        try:
            conversation = to_conversation(record.value, source.format)
        except SchemaError as error:
            bad_lines.add(BadLine(record.file, record.line, str(error)))
            continue
        if answer := _last_answer(conversation):
            # The name alone: the same file in another folder gives the same ids.
            place = f"{Path(record.file).name}:{record.line}"
            yield Reference(place, conversation.messages[:-1], answer)


def _last_answer(conversation: Conversation) -> str:
    """Text of the last turn; empty where it is a call of a tool, or the conversation has tools."""
    last = conversation.messages[-1]
    if conversation.tools or last.get("tool_calls"):
        return ""
    return str(last.get("content") or "").strip()


def _of_shards(folder: Path, subject: Subject, tokenizer_sha256: str) -> Iterator[Reference]:
    shards = TokenShards(folder)
    template = chat_template_hash(subject.tokenizer)
    shards.require("conversation", tokenizer_sha256=tokenizer_sha256, chat_template_sha256=template)
    for number in range(len(shards)):
        ids, mask = shards.tokens(number).tolist(), shards.loss_mask(number).tolist()
        end = len(mask) - mask[::-1].index(1) if 1 in mask else 0
        start = end
        while start and mask[start - 1]:
            start -= 1
        answer = str(subject.tokenizer.decode(ids[start:end], skip_special_tokens=True)).strip()
        if start and answer:
            yield Reference(f"{folder.name}:{number}", ids[:start], answer)
