"""Raw records -> token ids with loss masks, a chunk at a time.

`Encoder` takes a chunk of one source and gives an `EncodedChunk` of arrays: parsed, brought into one form,
cleaned, filtered and tokenized, and everything that was left out is counted. Knows nothing of processes or
files on disk.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from mengya.data.ingest.fields import Fields
from mengya.data.ingest.forms import known_form, renamed
from mengya.data.ingest.messages import SchemaError
from mengya.data.ingest.preferences import to_preferences
from mengya.data.ingest.reading.read import parse_chunk
from mengya.data.ingest.reading.records import BadLine, Chunk, Record
from mengya.data.ingest.samples import (
    clean_sample,
    completions,
    drop_reason,
    sample_hashes,
    train_on_last,
)
from mengya.data.ingest.schema import (
    Conversation,
    Document,
    Preference,
    Sample,
    to_conversation,
    to_document,
)
from mengya.errors import UserError
from mengya.text.clean import CleanConfig

Kind = Literal["text", "conversation", "preference"]
TrainOn = Literal["all_turns", "last_turn"]
Encoded = tuple[Sample, list[tuple[list[int], list[int]]]]  # a sample; (ids, mask) of each side
TOKENIZE_CHARACTERS = 1 << 16  # longer texts are tokenized in pieces where the ids allow it


@dataclass(frozen=True, slots=True)
class SourceForm:
    """How the records of a source are to be understood."""

    format: str | None = None
    field: str | list[str] = "text"
    columns: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class EncodedChunk:
    """What became of a chunk: N samples kept, D documents (2N for preferences, else N), T tokens.

    Attributes:
        tokens: [T] uint32, the documents end to end; loss_mask: [T] uint8, or nothing for text.
        lengths: [D] int64, tokens of each document.
        hashes, split_hashes: [N] uint64, of the sample, and what decides whether it is held out.
        characters: [N] int64, characters of the text that a loss is taken on (both sides of a preference).
        read: records read, bad lines included; bad: those; dropped: samples left out, by reason.
        unused: for every field that no format knows, how many records hold something in it.
        cut_turns: of conversations, after their last answer.
    """

    source: int
    read: int = 0
    bad: list[BadLine] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    cut_turns: int = 0
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    loss_mask: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    split_hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    characters: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class EncodingPlan:
    """All that a process needs to encode chunks, small enough to be sent to it.

    Attributes:
        tokenizer_path: the folder, read by processes that render conversations.
        text_tokenizer: for text, the tokenizer without control tokens as JSON, so that the processes need not
            load transformers (a quarter of a gigabyte each).
        document_token: the id that opens and closes a text.
        train_on: which assistant turns of a conversation are learned.
        exact: whether samples are the same only when they are equal to the letter.
    """

    kind: Kind
    tokenizer_path: str
    sources: list[SourceForm]
    clean: CleanConfig
    text_tokenizer: str = ""
    document_token: int = -1
    train_on: TrainOn = "all_turns"
    exact: bool = False


def plan_encoding(
    kind: Kind,
    tokenizer_path: str,
    sources: list[SourceForm],
    clean: CleanConfig,
    train_on: TrainOn = "all_turns",
    exact: bool = False,
) -> EncodingPlan:
    """The plan for a tokenizer folder."""
    plan = EncodingPlan(kind, tokenizer_path, sources, clean, train_on=train_on, exact=exact)
    if kind != "text":
        return plan
    from mengya.tokenizer.load import document_token_id, load_tokenizer, plain_backend

    tokenizer = load_tokenizer(tokenizer_path)
    backend = plain_backend(tokenizer).to_str()
    return replace(plan, text_tokenizer=backend, document_token=document_token_id(tokenizer))


class Encoder:
    """Turns chunks of records into token ids; one in every process."""

    def __init__(self, plan: EncodingPlan) -> None:
        self.kind: Kind = plan.kind
        self.sources, self.clean = plan.sources, plan.clean
        self._train_on, self._exact = plan.train_on, plan.exact
        if plan.kind == "text":
            self._texts = Tokenizer.from_str(plan.text_tokenizer)
            self._edge = np.array([plan.document_token], np.uint32)
        else:
            from mengya.tokenizer.load import load_tokenizer

            self._chats = load_tokenizer(plan.tokenizer_path)

    def __call__(self, source: int, chunk: Chunk) -> EncodedChunk:
        """Encode a chunk of source number `source`. Records that do not fit become bad lines."""
        result = EncodedChunk(source)
        kept: list[Encoded] = []
        for parsed in parse_chunk(chunk):
            result.read += 1
            if isinstance(parsed, BadLine):
                result.bad.append(parsed)
                continue
            try:
                kept += self._kept_samples(parsed, source, result)
            except (SchemaError, UserError) as error:
                reason = " ".join(str(error).split())
                result.bad.append(BadLine(parsed.file, parsed.line, reason))
            except RecursionError:
                result.bad.append(BadLine(parsed.file, parsed.line, "nested too deeply"))
        pairs = [sample_hashes(sample, self._exact) for sample, _ in kept]
        hashes = np.array(pairs, np.uint64).reshape(-1, 2)
        result.hashes, result.split_hashes = hashes[:, 0].copy(), hashes[:, 1].copy()
        if self.kind == "text":
            texts = [sample.text for sample, _ in kept if isinstance(sample, Document)]
            _fill(result, self._encode_texts(texts), [])
            result.characters = np.array([len(text) for text in texts], np.int64)
        else:
            sides = [side for _, encoded in kept for side in encoded]
            ids = [np.array(ids, np.uint32) for ids, _ in sides]
            masks = [np.array(mask, np.uint8) for _, mask in sides]
            _fill(result, ids, masks)
            counts = [
                sum(self._labelled_characters(*side) for side in encoded) for _, encoded in kept
            ]
            result.characters = np.array(counts, np.int64)
        return result

    def _kept_samples(self, record: Record, source: int, result: EncodedChunk) -> list[Encoded]:
        """The cleaned samples of a record that no filter drops, chats with their ids and masks."""
        kept: list[Encoded] = []
        source_form = self.sources[source]
        for sample in to_samples(self.kind, record.value, source_form, result.unused):
            if isinstance(sample, Conversation):
                result.cut_turns += sample.cut
            sample = clean_sample(sample, self.clean)
            if reason := drop_reason(sample, self.clean):
                result.dropped[reason] += 1
                continue
            sides = [] if isinstance(sample, Document) else self._encode_chat(sample)
            if len(sides) == 2 and sides[0] == sides[1]:  # a template may cut what differs
                result.dropped["same_answers"] += 1
            else:
                kept.append((sample, sides))
        return kept

    def _encode_texts(self, texts: list[str]) -> list[np.ndarray]:
        """[document token] ids [document token] of every text; a typed control token stays text."""
        parts = [[self._edge] for _ in texts]
        for group in _groups(texts, self._texts):
            encodings = self._texts.encode_batch_fast(
                [piece for _, piece in group], add_special_tokens=False
            )
            for (number, _), encoding in zip(group, encodings, strict=True):
                parts[number].append(np.array(encoding.ids, np.uint32))
        return [np.concatenate([*part, self._edge]) for part in parts]

    def _encode_chat(self, sample: Conversation | Preference) -> list[tuple[list[int], list[int]]]:
        """(ids, loss mask) of a conversation, or of chosen and rejected with the prompt's turns masked."""
        from mengya.tokenizer.chat_template import encode_conversation

        if isinstance(sample, Conversation):
            if self._train_on == "last_turn":
                sample = train_on_last(sample)
            return [encode_conversation(self._chats, sample.messages, sample.tools)]
        sides = completions(sample)
        return [encode_conversation(self._chats, side, sample.tools) for side in sides]

    def _labelled_characters(self, ids: list[int], mask: list[int]) -> int:
        labelled = [token for token, one in zip(ids, mask, strict=True) if one]
        return len(self._chats.backend_tokenizer.decode(labelled, skip_special_tokens=True))


def to_samples(
    kind: Kind, value: Any, form: SourceForm, unused: Counter[str] | None = None
) -> list[Sample]:
    """The samples of a record.

    Args:
        unused: counts the fields of the record that no sample took.

    Raises:
        SchemaError: it does not have the form.
    """
    value, format = known_record(kind, value, form)
    fields = Fields(value) if isinstance(value, dict) else value
    if kind == "text":
        samples: list[Sample] = [to_document(fields, form.field)]
    elif kind == "conversation":
        samples = [to_conversation(fields, format)]
    else:
        samples = list(to_preferences(fields, format))
    if unused is not None and isinstance(fields, Fields):
        unused.update(fields.unused())
    return samples


def known_record(kind: Kind, value: Any, form: SourceForm) -> tuple[Any, str | None]:
    """The record with the names and turns that the schemas know, and its format where that still holds."""
    value = renamed(value, dict(form.columns))
    known = value if kind == "text" else known_form(value)
    return known, form.format if known is value else None


def _groups(texts: list[str], tokenizer: Tokenizer) -> Iterator[list[tuple[int, str]]]:
    """(number of the text, piece of it), in groups of about a million characters to tokenize at once."""
    group: list[tuple[int, str]] = []
    size = 0
    for number, text in enumerate(texts):
        for piece in cut_for_tokenizing(text, tokenizer):
            group.append((number, piece))
            size += len(piece)
            if size >= 1 << 20:
                yield group
                group, size = [], 0
    yield group


def cut_for_tokenizing(text: str, tokenizer: Tokenizer) -> list[str]:
    """A long text in pieces whose ids are, end to end, those of the uncut text; a shorter one uncut.

    Tokenizers hold some hundred bytes per token while they work. The usual split rules (GPT-2, Qwen2,
    Llama 3) never join a line end with a following letter, nor a letter with following punctuation. A
    tokenizer that does, or that writes something at the start of every text (the "prepend" normalizers of
    SentencePiece vocabularies), gives other ids around every such place: it gets the text uncut.
    """
    pieces, begin = [], 0
    while len(text) - begin > TOKENIZE_CHARACTERS:
        places = _places(text, begin + TOKENIZE_CHARACTERS, begin + 2 * TOKENIZE_CHARACTERS)
        at = next((at for at in places if _is_safe_cut(text, at, tokenizer)), None)
        if at is None:
            break
        pieces.append(text[begin:at])
        begin = at
    return [*pieces, text[begin:]]


_LINE_START = re.compile(r"(?<=\n)(?=[^\W\d_])")
_WORD_END = re.compile(r"(?<=[^\W\d_])(?=[，。；：、！？,.;:!?])")
_TRIES, _AROUND = 8, 64


def _places(text: str, first: int, last: int) -> Iterator[int]:
    """Where words end in [first, last): some beginnings of lines, then some ends of words."""
    for pattern in (_LINE_START, _WORD_END):
        for found in islice(pattern.finditer(text, first, last), _TRIES):
            yield found.start()


def _is_safe_cut(text: str, at: int, tokenizer: Tokenizer) -> bool:
    """Whether the ids around a place do not change when the text is cut there."""
    left, right = text[at - _AROUND : at], text[at : at + _AROUND]
    uncut, *halves = (
        tokenizer.encode(part, add_special_tokens=False).ids for part in (left + right, left, right)
    )
    return uncut == [i for ids in halves for i in ids]


def _fill(result: EncodedChunk, ids: list[np.ndarray], masks: list[np.ndarray]) -> None:
    result.lengths = np.array([len(i) for i in ids], np.int64)
    if ids:
        result.tokens = np.concatenate(ids)
    if masks:
        result.loss_mask = np.concatenate(masks)
