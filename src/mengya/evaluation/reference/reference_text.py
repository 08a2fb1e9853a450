"""Yardstick reference_text: bits per character on text that ships with mengya, by domain and over all.

The texts and their origin are in text/ (text/README.md). The same text for every model, so the figure can be
laid over the reference curves (curves.py), whatever data and tokenizer a model has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from mengya.evaluation.likelihood.bits_per_char import document_costs
from mengya.evaluation.likelihood.by_domain import bits_by_domain
from mengya.evaluation.likelihood.held_out import HeldOutText
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig, YardstickResult

NAME = "reference_text"
APART = ("classics",)  # in most training text: in no figure over all domains
_FOLDER = Path(__file__).parent / "text"


@cache
def reference_documents() -> tuple[HeldOutText, ...]:
    """All documents, by domain, in their order."""
    return tuple(
        HeldOutText(document["text"], file.stem, document["id"])
        for file in sorted(_FOLDER.glob("*.jsonl"))
        for document in map(json.loads, file.read_text(encoding="utf-8").splitlines())
    )


@cache
def reference_text_sha256() -> str:
    """Of the text that a reference curve holds for."""
    digest = hashlib.sha256()
    for document in reference_documents():
        digest.update(f"{document.domain}/{document.id}\n{document.text}\n".encode())
    return digest.hexdigest()


def reference_text(subject: Subject, config: YardstickConfig) -> YardstickResult:
    """Bits per character and per byte of the text that ships, overall and by domain."""
    texts = reference_documents() if config.limit is None else _spread(config.limit)
    costs = list(document_costs(subject.model, subject.tokenizer, texts))
    return bits_by_domain(costs, NAME, f"{NAME}/bits_per_byte", APART, config.seed)


def is_complete(limit: int | None) -> bool:
    """Whether a measurement with this `limit` read all documents, as a reference curve does."""
    return limit is None or len(list(_spread(limit))) == len(reference_documents())


def _spread(limit: int) -> Iterator[HeldOutText]:
    """At most `limit` documents of every domain, spread evenly."""
    domains = dict.fromkeys(document.domain for document in reference_documents())
    for domain in domains:
        own = [document for document in reference_documents() if document.domain == domain]
        count = min(limit, len(own))
        yield from (own[i * len(own) // count] for i in range(count))
