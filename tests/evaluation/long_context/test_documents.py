"""Figures of documents by length and by position are those of bits per character, taken apart."""

from __future__ import annotations

import math

import pytest
import torch

from mengya.errors import UserError
from mengya.evaluation.likelihood.bits_per_char import bits_per_char
from mengya.evaluation.likelihood.scoring import sequence_nlls
from mengya.evaluation.long_context.buckets import Buckets
from mengya.evaluation.long_context.documents import document_figures
from mengya.evaluation.subject import Subject
from mengya.measured.measurement import Measurement
from mengya.tokenizer.load import document_token_id, encode_texts

PAGE = "春天来了，院子里的桃花开了，小猫在树下打盹。小明每天早上七点起床🙂。"


def figures(found: list[Measurement]) -> dict[str, Measurement]:
    return {m.name.removeprefix("long_context/"): m for m in found}


def texts(subject: Subject) -> list[str]:
    """Documents of about 20, 60 and 200 tokens, several each, no two equal."""
    per_page = len(encode_texts(subject.tokenizer, [PAGE])[0])
    return [PAGE[i:] + PAGE * (tokens // per_page) for tokens in (20, 60, 200) for i in range(4)]


def test_by_length_they_are_bits_per_character_of_those_documents(subject: Subject) -> None:
    buckets, documents = Buckets([100, 160]), texts(subject)
    found = document_figures(subject, documents, buckets, most=64)
    by_name = figures(found.measurements)
    lengths = [len(ids) + 1 for ids in encode_texts(subject.tokenizer, documents)]
    for name in buckets.names:
        own = [t for t, n in zip(documents, lengths, strict=True) if buckets.name(n) == name]
        if not own:
            assert f"nats/document_{name}" not in by_name
            continue
        expected = bits_per_char(subject.model, subject.tokenizer, own)
        bits, nats = by_name[f"bits_per_char/document_{name}"], by_name[f"nats/document_{name}"]
        assert bits.value == pytest.approx(expected.bits_per_char, rel=1e-5)
        assert nats.value == pytest.approx(expected.nats_per_token, rel=1e-5)
        assert bits.items == len(own) and bits.unit == "bits/char" and not bits.note
    total = sum(item["score"] for item in found.items)
    expected = bits_per_char(subject.model, subject.tokenizer, documents)
    assert total == pytest.approx(expected.bits_per_char * expected.characters, rel=1e-5)


def test_by_position_they_are_the_predictions_of_those_positions(subject: Subject) -> None:
    document, edges = PAGE * 6, [40, 101]
    found = figures(document_figures(subject, [document], Buckets(edges), most=1).measurements)
    edge = document_token_id(subject.tokenizer)
    ids = [edge, *encode_texts(subject.tokenizer, [document])[0], edge]
    (nll,) = sequence_nlls(subject.model, [ids])
    parts = torch.tensor_split(nll.double(), edges)
    characters = 0.0
    for name, part in zip(("0-40", "40-101", "101+"), parts, strict=True):
        nats = found[f"nats/position_{name}"]
        assert nats.value == pytest.approx(part.mean().item(), rel=1e-5) and nats.interval is None
        bits = found[f"bits_per_char/position_{name}"].value
        characters += part.sum().item() / math.log(2) / bits
    assert characters == pytest.approx(len(document))


def test_documents_beyond_the_context_are_said_and_count_as_far_as_it_reaches(
    subject: Subject,
) -> None:
    documents = [PAGE * 2, PAGE * 60, PAGE[3:] * 60]
    found = document_figures(subject, documents, Buckets([1000]), most=8)
    by_name = figures(found.measurements)
    assert by_name["nats/document_0-1k"].items == 1 and "nats/document_1k+" not in by_name
    note = by_name["nats/document_0-1k"].note
    assert note == "2 documents beyond the context of 1,024 are left out"
    late = by_name["nats/position_1k+"]
    assert late.items == 2 and "only the first 1,024 tokens" in late.note
    assert len(found.items) == 1


def test_so_many_of_each_bucket_are_read_and_no_more(subject: Subject) -> None:
    read = []

    def endless() -> object:
        for i in range(10**6):
            read.append(i)
            yield PAGE if i % 2 else PAGE * 8

    found = document_figures(subject, endless(), Buckets([100]), most=3)  # type: ignore[arg-type]
    assert len(found.items) == 6 and len(read) < 100
    with pytest.raises(UserError, match="every document was empty"):
        document_figures(subject, ["", ""], Buckets([100]), most=3)
