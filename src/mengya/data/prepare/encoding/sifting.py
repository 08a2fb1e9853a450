"""Candidates of a chunk -> those that are kept, by what is judged on many samples at once or last.

What is left out is counted in the chunk, with its reason. Knows nothing of records or tokens.
"""

from __future__ import annotations

from itertools import islice

from mengya.data.ingest.samples import clean_sample, drop_reason, filter_texts
from mengya.data.ingest.schema import Document
from mengya.data.prepare.duplicates.repeated_text import REPEATED_TEXT, RepeatedText
from mengya.data.prepare.encoding.plan import BatchFilter
from mengya.data.prepare.exams.check import ExamItems
from mengya.data.prepare.outcome.encoded_chunk import Candidate, EncodedChunk
from mengya.data.prepare.outcome.examples import edit_example
from mengya.text.clean import CleanConfig


def passing(
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


def without_repeated(
    repeated: RepeatedText,
    candidates: list[Candidate],
    clean: CleanConfig,
    result: EncodedChunk,
) -> list[Candidate]:
    """Documents without the passages that an earlier one has; those that lose too much are dropped.

    One that keeps a passage for others stays, and in full where the rest of it would be too short.
    """
    kept = []
    for candidate in candidates:
        text = candidate_text(candidate)
        left, candidate.keeps_passage = repeated.remove(text)
        if left is None:
            result.drop(REPEATED_TEXT, candidate)
            continue
        rest = clean_sample(Document(left), clean)
        reason = drop_reason(rest, clean)
        if reason and not candidate.keeps_passage:
            result.drop(reason, candidate)
            continue
        if left != text and not reason:
            result.edits[REPEATED_TEXT] += 1
            example = edit_example(text, left, result.file, candidate.line)
            result.edit_examples.add(REPEATED_TEXT, example)
            candidate.sample = rest
        kept.append(candidate)
    return kept


def with_exam_items(
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


def without_same_answers(candidates: list[Candidate], result: EncodedChunk) -> list[Candidate]:
    """A template may cut what differs."""
    kept = []
    for candidate in candidates:
        if len(candidate.sides) == 2 and candidate.sides[0] == candidate.sides[1]:
            result.drop("same_answers", candidate)
        else:
            kept.append(candidate)
    return kept


def candidate_text(candidate: Candidate) -> str:
    """Of a document."""
    assert isinstance(candidate.sample, Document)
    return candidate.sample.text
