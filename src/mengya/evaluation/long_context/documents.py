"""Held-out documents by length: nats per token and bits per character, and the same by position inside them.

A document is the document token, its text, the document token, as in training. By length, a document counts
where its full text fits into the model's context. By position, every document counts as far as the context
reaches: what is predicted from 4k to 8k tokens of context and more, whatever the length of the text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from mengya.errors import UserError
from mengya.evaluation.likelihood.scoring import sequence_nlls
from mengya.evaluation.long_context.buckets import Buckets
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickResult
from mengya.measured.intervals import bootstrap_ratio
from mengya.measured.measurement import Measurement
from mengya.tokenizer.load import document_token_id, plain_backend

_GROUP = 16  # documents encoded and scored at a time


@dataclass(frozen=True)
class _Span:
    """A document, or what of it lies in one bucket of positions."""

    nats: float
    tokens: int
    characters: int


@dataclass(frozen=True)
class _Document:
    """
    Attributes:
        tokens: that are predicted of its full text, the closing document token included.
        fits: whether the model's context holds all of them.
        spans: what was predicted, by bucket of positions.
    """

    number: int
    tokens: int
    fits: bool
    spans: list[_Span]

    @property
    def total(self) -> _Span:
        return _Span(
            sum(span.nats for span in self.spans),
            sum(span.tokens for span in self.spans),
            sum(span.characters for span in self.spans),
        )


def document_figures(
    subject: Subject, texts: Iterable[str], buckets: Buckets, most: int, seed: int = 0
) -> YardstickResult:
    """long_context/{nats,bits_per_char}/document_BUCKET and .../position_BUCKET.

    The score of an item is the bits of its document, as in bits per character by domain.

    Args:
        most: documents of each bucket, the first ones of `texts`; it is read until every bucket has so many.

    Raises:
        UserError: no text.
    """
    documents = list(_scored(subject, texts, buckets, most))
    if not documents:
        raise UserError("long_context.texts: every document was empty; give a file with long texts")
    over = sum(not document.fits for document in documents)
    context = subject.context_length
    note = f"{over:,} documents beyond the context of {context:,} are left out" if over else ""
    cut = f"of {over:,} documents only the first {context:,} tokens, the context" if over else ""
    measured: list[Measurement] = []
    for number, name in enumerate(buckets.names):
        own = [d.total for d in documents if d.fits and buckets.number(d.tokens) == number]
        measured += _figures(f"document_{name}", own, note, seed)
    for number, name in enumerate(buckets.names):
        parts = [d.spans[number] for d in documents if d.spans[number].tokens]
        measured += _figures(f"position_{name}", parts, cut, seed)
    items = [_item(document, buckets) for document in documents if document.fits]
    return YardstickResult(measured, items)


def _item(document: _Document, buckets: Buckets) -> dict[str, Any]:
    total = document.total
    return {
        "part": f"bits_per_char/document_{buckets.name(document.tokens)}",
        "id": str(document.number),
        "score": total.nats / math.log(2),
        "characters": total.characters,
        "tokens": total.tokens,
    }


def _figures(part: str, spans: Sequence[_Span], note: str, seed: int) -> Iterator[Measurement]:
    """Nothing where no document reaches."""
    characters = [span.characters for span in spans]
    if not sum(characters):
        return
    nats, tokens = [span.nats for span in spans], [span.tokens for span in spans]
    bits = [value / math.log(2) for value in nats]
    for name, values, counts, unit in (
        ("nats", nats, tokens, "nats/token"),
        ("bits_per_char", bits, characters, "bits/char"),
    ):
        interval = bootstrap_ratio(values, counts, seed) if len(spans) > 1 else None
        value = sum(values) / sum(counts)
        yield Measurement(
            f"long_context/{name}/{part}", value, interval, len(spans), unit, "lower", note=note
        )


def _scored(
    subject: Subject, texts: Iterable[str], buckets: Buckets, most: int
) -> Iterator[_Document]:
    """The first documents of each bucket; those beyond the context count for the bucket of their length."""
    tokenizer, edge = plain_backend(subject.tokenizer), document_token_id(subject.tokenizer)
    context, found = subject.context_length, [0] * len(buckets)
    numbered = enumerate(text for text in texts if text)
    while min(found) < most and (group := list(islice(numbered, _GROUP))):
        encodings = tokenizer.encode_batch([text for _, text in group], add_special_tokens=False)
        chosen: list[
            tuple[int, list[int], list[int]]
        ] = []  # number, ids, end of each in characters
        for (number, text), encoding in zip(group, encodings, strict=True):
            bucket = buckets.number(len(encoding.ids) + 1)
            if found[bucket] < most:
                found[bucket] += 1
                ends = [end for _, end in encoding.offsets]
                chosen.append((number, [edge, *encoding.ids, edge], [*ends, len(text)]))
        rows = [ids[: context + 1] for _, ids, _ in chosen]
        for (number, ids, ends), nll in zip(
            chosen, sequence_nlls(subject.model, rows), strict=True
        ):
            spans = []
            for which in range(len(buckets)):
                low, high = buckets.bounds(which)
                part = nll[low:high].double()
                before, last = (
                    (0, *ends)[min(low, len(nll))],
                    (0, *ends)[min(high or len(nll), len(nll))],
                )
                spans.append(_Span(part.sum().item(), len(part), last - before))
            yield _Document(number, len(ids) - 1, len(nll) == len(ids) - 1, spans)
