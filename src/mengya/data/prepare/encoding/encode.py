"""Raw records -> token ids with loss masks, a chunk at a time.

`Encoder` takes a chunk of one source and gives an `EncodedChunk` of arrays: parsed, brought into one form,
edited, cleaned, filtered and tokenized, and everything that was left out is counted, with examples. Knows
nothing of processes or files on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

import numpy as np

from mengya.data.ingest.messages import SchemaError
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
from mengya.data.ingest.schema import Conversation, Document, Preference, Sample
from mengya.data.prepare.duplicates.repeated_text import RepeatedText
from mengya.data.prepare.duplicates.signing import sign
from mengya.data.prepare.encoding.plan import EncodingPlan, Kind
from mengya.data.prepare.encoding.record_samples import to_samples
from mengya.data.prepare.encoding.sifting import (
    candidate_text,
    passing,
    with_exam_items,
    without_repeated,
    without_same_answers,
)
from mengya.data.prepare.encoding.tokenize import TextIds
from mengya.data.prepare.outcome.encoded_chunk import Candidate, EncodedChunk
from mengya.data.prepare.outcome.examples import EXCERPT, Example, edit_example, place_example
from mengya.errors import UserError
from mengya.text.filters.pipeline import TextFilters
from mengya.text.placeholders import unfilled
from mengya.text.scripts import SCRIPTS, script_counts

SCRIPTS_OF_ONE_IN = np.uint64(8)  # samples, chosen by their hash: a histogram needs no more


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
            candidates = passing(keeps, candidates, result)
        if self._repeated is not None and self._repeated.table is None:
            if self._exam_items is not None and self._exam_items.drop:
                # A document that is going to be dropped must not be the one that keeps a passage.
                candidates = with_exam_items(self._exam_items, candidates, result)
            result.passages = self._repeated.collect(map(candidate_text, candidates))
            return result
        if self._repeated is not None:
            candidates = without_repeated(self._repeated, candidates, self.clean, result)
        if self._exam_items is not None:
            candidates = with_exam_items(self._exam_items, candidates, result)
        if self.kind != "text":
            candidates = self._with_chat_ids(candidates, result)
        result.bad.sort(key=lambda bad: bad.line)
        self._describe([candidate.sample for candidate in candidates], result)
        result.keeps = np.array([candidate.keeps_passage for candidate in candidates], bool)
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
                kept += without_same_answers(of_record, result)
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
