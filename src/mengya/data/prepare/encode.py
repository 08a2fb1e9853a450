"""Raw records -> token ids with loss masks, a chunk at a time.

`Encoder` takes a chunk of one source and gives an `EncodedChunk` of arrays: parsed, brought into one form,
edited, cleaned, filtered and tokenized, and everything that was left out is counted, with examples. Knows
nothing of processes or files on disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from typing import Any, Literal

import numpy as np

from mengya.data.ingest.fields import Fields
from mengya.data.ingest.forms import known_form, renamed
from mengya.data.ingest.messages import SchemaError
from mengya.data.ingest.preferences import to_preferences
from mengya.data.ingest.reading.read import parse_chunk
from mengya.data.ingest.reading.records import BadLine, Chunk, Record
from mengya.data.ingest.samples import (
    asked,
    change_texts,
    clean_sample,
    completions,
    drop_reason,
    excerpt,
    filter_texts,
    learned_answers,
    sample_characters,
    sample_hashes,
    sample_turns,
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
from mengya.data.prepare.exam_check import ExamItems
from mengya.data.prepare.examples import (
    EXCERPT,
    Example,
    Examples,
    edit_example,
    place_example,
)
from mengya.data.prepare.own_filters import OwnFilter
from mengya.data.prepare.repeated_text import REPEATED_TEXT, RepeatedText, RepeatedTextPlan
from mengya.data.prepare.signing import Signing, sign
from mengya.data.prepare.tokenize import TextIds
from mengya.errors import UserError
from mengya.text.clean import CleanConfig
from mengya.text.duplicates import text_hash
from mengya.text.filters.config import FilterConfig
from mengya.text.filters.pipeline import TextFilters
from mengya.text.placeholders import unfilled
from mengya.text.scripts import SCRIPTS, script_counts

Kind = Literal["text", "conversation", "preference"]
TrainOn = Literal["all_turns", "last_turn"]
BatchFilter = Callable[[list[str]], list[str | None]]
"""Texts -> for each the reason to drop it, or None: for filters that are faster on many texts at once."""
SCRIPTS_OF_ONE_IN = np.uint64(8)  # samples, chosen by their hash: a histogram needs no more


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
        file: that the chunk is of; lines: [N] int64, the line of each sample in it.
        excerpts: [N], the beginning of each sample.
        text_characters: [N] int64, characters of the full sample, of all turns of a chat; turns: [N] int64,
            assistant turns.
        scripts: [M, S] int64, characters of every script in the samples of the numbers script_samples: [M].
        dropped_characters: as text_characters, of samples left out, by reason.
        edits: samples that each edit changed.
        hits: (sample, exam item) for every item that a sample holds; dropped_hits: (line, exam item) of
            samples that were dropped for it.
        examples: of what was dropped, by reason; edit_examples: of what was edited, by edit.
        placeholders: samples whose learned answers hold each of them; placeholder_examples: by placeholder.
        signatures, split_signatures: [N, P] uint8, for near-duplicates; [N, 0] where they are not needed.
        passages: of all samples, when only these are asked for, to find text that repeats; nothing else then.
    """

    source: int
    file: str = ""
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
    lines: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    excerpts: list[str] = field(default_factory=list)
    text_characters: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    turns: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    scripts: np.ndarray = field(default_factory=lambda: np.zeros((0, len(SCRIPTS)), np.int64))
    script_samples: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    dropped_characters: Counter[str] = field(default_factory=Counter)
    edits: Counter[str] = field(default_factory=Counter)
    hits: list[tuple[int, int]] = field(default_factory=list)
    dropped_hits: list[tuple[int, int]] = field(default_factory=list)
    examples: Examples = field(default_factory=Examples)
    edit_examples: Examples = field(default_factory=Examples)
    placeholders: Counter[str] = field(default_factory=Counter)
    placeholder_examples: Examples = field(default_factory=Examples)
    signatures: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.uint8))
    split_signatures: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.uint8))
    passages: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def drop(self, reason: str, candidate: Candidate) -> None:
        """Count a sample that is left out, and keep it as an example if its hash is small enough."""
        self.dropped[reason] += 1
        self.dropped_characters[reason] += sample_characters(candidate.sample)
        text = excerpt(candidate.sample, EXCERPT)
        key = text_hash(text)
        if self.examples.wants(reason, key):
            self.examples.add(reason, Example(key, self.file, candidate.line, text))


@dataclass(slots=True)
class Candidate:
    """A sample on its way to be kept.

    Attributes:
        record: number of its record in the chunk; line: of that record in the file.
        sides: (ids, loss mask) of a conversation, or of both sides of a preference; nothing for text.
        exam_items: that the sample holds.
    """

    record: int
    line: int
    sample: Sample
    sides: list[tuple[list[int], list[int]]] = field(default_factory=list)
    exam_items: list[int] = field(default_factory=list)


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


class Encoder:
    """Turns chunks of records into token ids; one in every process."""

    def __init__(self, plan: EncodingPlan) -> None:
        self.kind: Kind = plan.kind
        self.sources, self.clean = plan.sources, plan.clean
        self._train_on, self._exact = plan.train_on, plan.exact
        self._filters = None
        if plan.filters is not None:
            self._filters = TextFilters(plan.filters, [own.load() for own in plan.own_filters])
        self._fill, self._drop_placeholders = plan.fill, plan.drop_placeholders
        self._batch_filters = [make() for make in plan.batch_filters]
        self._signing = plan.signing
        self._repeated = RepeatedText(plan.repeated_text) if plan.repeated_text else None
        self._exam_items = plan.exam_items
        if plan.kind == "text":
            self._texts = TextIds(plan.text_tokenizer, plan.document_token, plan.text_ranks)
        else:
            from mengya.tokenizer.load import load_tokenizer

            self._chats = load_tokenizer(plan.tokenizer_path)

    def __call__(self, source: int, chunk: Chunk) -> EncodedChunk:
        """Encode a chunk of source number `source`. Records that do not fit become bad lines."""
        result = EncodedChunk(source, chunk.file)
        candidates = self._read(chunk, result)
        for keeps in self._batch_filters:
            candidates = _passing(keeps, candidates, result)
        if self._repeated is not None and self._repeated.table is None:
            result.passages = self._repeated.collect(map(_text, candidates))
            return result
        if self._repeated is not None:
            candidates = self._without_repeated(self._repeated, candidates, result)
        if self._exam_items is not None:
            candidates = _with_exam_items(self._exam_items, candidates, result)
        if self.kind != "text":
            candidates = self._with_chat_ids(candidates, result)
        result.bad.sort(key=lambda bad: bad.line)
        self._describe([candidate.sample for candidate in candidates], result)
        result.lines = np.array([candidate.line for candidate in candidates], np.int64)
        result.hits = [(at, item) for at, c in enumerate(candidates) for item in c.exam_items]
        if self.kind == "text":
            texts = [c.sample.text for c in candidates if isinstance(c.sample, Document)]
            _fill(result, self._texts(texts), [])
            result.characters = result.text_characters
        else:
            sides = [side for candidate in candidates for side in candidate.sides]
            ids = [np.array(ids, np.uint32) for ids, _ in sides]
            masks = [np.array(mask, np.uint8) for _, mask in sides]
            _fill(result, ids, masks)
            counts = [sum(self._labelled_characters(*side) for side in c.sides) for c in candidates]
            result.characters = np.array(counts, np.int64)
        return result

    def _read(self, chunk: Chunk, result: EncodedChunk) -> list[Candidate]:
        """The cleaned samples of all records that no filter of single texts drops."""
        candidates: list[Candidate] = []
        for number, parsed in enumerate(parse_chunk(chunk)):
            result.read += 1
            if isinstance(parsed, BadLine):
                result.bad.append(parsed)
                continue
            with _bad_line(result, parsed.line):
                candidates += self._of_record(number, parsed, result)
        return candidates

    def _of_record(self, number: int, record: Record, result: EncodedChunk) -> list[Candidate]:
        kept: list[Candidate] = []
        form = self.sources[result.source]
        for sample in to_samples(self.kind, record.value, form, result.unused):
            if isinstance(sample, Conversation):
                result.cut_turns += sample.cut
            if self._fill:
                sample = change_texts(sample, self._filled)
            if self._filters is not None:
                sample = self._edited(sample, record.line, result)
            sample = clean_sample(sample, self.clean)
            candidate = Candidate(number, record.line, sample)
            reason = drop_reason(sample, self.clean) or self._filter_reason(sample)
            if reason or (reason := self._placeholder(candidate, result)):
                result.drop(reason, candidate)
            else:
                kept.append(candidate)
        return kept

    def _edited(self, sample: Sample, line: int, result: EncodedChunk) -> Sample:
        """The sample after all edits; those that changed it are counted, once a sample."""
        assert self._filters is not None
        changed: dict[str, Example] = {}

        def edit(text: str) -> str:
            assert self._filters is not None
            edited = self._filters.edit(text)
            for name in edited.by:
                if name not in changed:
                    changed[name] = edit_example(text, edited.text, result.file, line)
            return edited.text

        sample = change_texts(sample, edit)
        for name, example in changed.items():
            result.edits[name] += 1
            result.edit_examples.add(name, example)
        return sample

    def _filled(self, text: str) -> str:
        for placeholder, value in self._fill:
            text = text.replace(placeholder, value)
        return text

    def _placeholder(self, candidate: Candidate, result: EncodedChunk) -> str | None:
        """Count the unfilled placeholders of a chat; the reason for which it is dropped."""
        found: dict[str, str] = {}
        question = asked(candidate.sample)
        for answer in learned_answers(candidate.sample):
            found |= dict.fromkeys(unfilled(answer, question), answer)
        for name, answer in found.items():
            result.placeholders[name] += 1
            example = place_example(answer, name, result.file, candidate.line)
            result.placeholder_examples.add(name, example)
        return "placeholder" if found and self._drop_placeholders else None

    def _without_repeated(
        self, repeated: RepeatedText, candidates: list[Candidate], result: EncodedChunk
    ) -> list[Candidate]:
        """Documents without the passages that an earlier one has; those that lose too much are dropped."""
        kept = []
        for candidate in candidates:
            text = _text(candidate)
            left = repeated.remove(text)
            if left is None:
                result.drop(REPEATED_TEXT, candidate)
                continue
            if left != text:
                result.edits[REPEATED_TEXT] += 1
                example = edit_example(text, left, result.file, candidate.line)
                result.edit_examples.add(REPEATED_TEXT, example)
                candidate.sample = clean_sample(Document(left), self.clean)
            if reason := drop_reason(candidate.sample, self.clean):
                result.drop(reason, candidate)
            else:
                kept.append(candidate)
        return kept

    def _filter_reason(self, sample: Sample) -> str | None:
        if self._filters is None:
            return None
        reasons = map(self._filters.reason, filter_texts(sample))
        return next((reason for reason in reasons if reason), None)

    def _with_chat_ids(self, candidates: list[Candidate], result: EncodedChunk) -> list[Candidate]:
        """Those that the template renders, with their ids and masks; all samples of a record or none."""
        kept: list[Candidate] = []
        for _, samples in groupby(candidates, lambda candidate: candidate.record):
            of_record = list(samples)
            with _bad_line(result, of_record[0].line):
                for candidate in of_record:
                    assert not isinstance(candidate.sample, Document)
                    candidate.sides = self._encode_chat(candidate.sample)
                kept += _without_same_answers(of_record, result)
        return kept

    def _describe(self, samples: list[Sample], result: EncodedChunk) -> None:
        """Hashes, sizes and beginnings of the samples that are kept."""
        pairs = [sample_hashes(sample, self._exact) for sample in samples]
        hashes = np.array(pairs, np.uint64).reshape(-1, 2)
        result.hashes, result.split_hashes = hashes[:, 0].copy(), hashes[:, 1].copy()
        result.excerpts = [excerpt(sample, EXCERPT) for sample in samples]
        result.text_characters = np.array([sample_characters(s) for s in samples], np.int64)
        result.turns = np.array([sample_turns(sample) for sample in samples], np.int64)
        result.script_samples = np.flatnonzero(result.hashes % SCRIPTS_OF_ONE_IN == 0)
        counted = [
            script_counts(filter_texts(samples[i])[0]) for i in result.script_samples.tolist()
        ]
        result.scripts = np.array(counted, np.int64).reshape(-1, len(SCRIPTS))
        if self._signing is not None:
            result.signatures, result.split_signatures = sign(samples, self._signing)

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


def _text(candidate: Candidate) -> str:
    assert isinstance(candidate.sample, Document)
    return candidate.sample.text


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


def _fill(result: EncodedChunk, ids: list[np.ndarray], masks: list[np.ndarray]) -> None:
    result.lengths = np.array([len(i) for i in ids], np.int64)
    if ids:
        result.tokens = np.concatenate(ids)
    if masks:
        result.loss_mask = np.concatenate(masks)


@contextmanager
def _bad_line(result: EncodedChunk, line: int) -> Iterator[None]:
    """What a record does not fit becomes a bad line."""
    try:
        yield
    except (SchemaError, UserError) as error:
        result.bad.append(BadLine(result.file, line, " ".join(str(error).split())))
    except RecursionError:
        result.bad.append(BadLine(result.file, line, "nested too deeply"))


def _passing(
    keeps: BatchFilter, candidates: list[Candidate], result: EncodedChunk
) -> list[Candidate]:
    """Those that a filter of many texts keeps; a preference pair is dropped for either of its sides."""
    texts = [filter_texts(candidate.sample) for candidate in candidates]
    reasons = iter(keeps([text for of_sample in texts for text in of_sample]))
    kept = []
    for candidate, of_sample in zip(candidates, texts, strict=True):
        found = [reason for reason in islice(reasons, len(of_sample)) if reason]
        if found:
            result.drop(found[0], candidate)
        else:
            kept.append(candidate)
    return kept


def _with_exam_items(
    exam_items: ExamItems, candidates: list[Candidate], result: EncodedChunk
) -> list[Candidate]:
    """Those that stay, with the exam items that they hold."""
    held = exam_items.held_by([candidate.sample for candidate in candidates])
    for candidate, items in zip(candidates, held, strict=True):
        candidate.exam_items = items
        if items and exam_items.drop:
            result.drop("contaminated", candidate)
            result.dropped_hits += [(candidate.line, item) for item in items]
    return [c for c in candidates if not (c.exam_items and exam_items.drop)]


def _without_same_answers(candidates: list[Candidate], result: EncodedChunk) -> list[Candidate]:
    """A template may cut what differs."""
    kept = []
    for candidate in candidates:
        if len(candidate.sides) == 2 and candidate.sides[0] == candidate.sides[1]:
            result.drop("same_answers", candidate)
        else:
            kept.append(candidate)
    return kept
