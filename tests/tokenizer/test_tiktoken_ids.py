"""Ids by tiktoken are those of tokenizers, or it is not used."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from mengya.data.prepare.encoding import tokenize
from mengya.data.prepare.encoding.tokenize import TextIds
from mengya.tokenizer import tiktoken_ids
from mengya.tokenizer.load import plain_backend
from mengya.tokenizer.tiktoken_ids import LONGEST, TiktokenIds, tiktoken_ranks

HARD = [
    "",
    " \n\n \t 、",
    "it's IT'S 'ſa 'ſ'K ﬆ 'ﬆ",
    "<|im_end|>中文\u3000\x85\u2028ɐ①½²٣é e\u0301",
    "👨‍👩‍👧 𠮷野家 \u200d\ufeff\U000e0041",
    "1234567.89" + "。" * 300 + " " * 999 + "x",
]


@pytest.fixture(scope="module", name="backend")
def plain_tokenizer(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    return plain_backend(tokenizer)


@pytest.fixture(scope="module", name="fast")
def by_tiktoken(backend: Tokenizer) -> TiktokenIds:
    ranks = tiktoken_ranks(backend)
    assert ranks is not None
    return TiktokenIds(ranks, backend)


def random_texts() -> list[str]:
    """Characters of every block, between letters and spaces."""
    chosen = random.Random(0)
    codes = [c for c in range(0x32000) if not 0xD800 <= c < 0xE000]
    return ["".join(f"{chr(c)}a {chr(c)}" for c in chosen.choices(codes, k=40)) for _ in range(30)]


def test_ids_are_those_of_tokenizers(
    fast: TiktokenIds, backend: Tokenizer, corpus: list[str]
) -> None:
    for text in [*HARD, *random_texts(), *corpus[:60]]:
        assert fast.is_sure(text)
        assert fast(text).tolist() == backend.encode(text, add_special_tokens=False).ids, text


def changed(backend: Tokenizer, **model: Any) -> Tokenizer:
    state = json.loads(backend.to_str())
    state["model"] |= model
    return Tokenizer.from_str(json.dumps(state))


def test_other_tokenizers_are_left_to_tokenizers(backend: Tokenizer) -> None:
    merges = json.loads(backend.to_str())["model"]["merges"]
    assert tiktoken_ranks(changed(backend, merges=merges)) is not None
    assert tiktoken_ranks(changed(backend, merges=merges[::-1])) is None
    assert tiktoken_ranks(changed(backend, merges=[*merges[1:], merges[0]])) is None
    normalized = changed(backend)
    normalized.normalizer = normalizers.NFC()
    assert tiktoken_ranks(normalized) is None
    added = changed(backend)
    added.add_tokens(["猫咪"])
    assert tiktoken_ranks(added) is None


def test_a_character_of_another_kind_is_left_to_tokenizers(
    backend: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a letter of a newer Unicode would be: here é is none for tiktoken."""
    pattern = tiktoken_ids.SPLIT_PATTERN.replace(r"\p{L}", r"[\p{L}--é]")
    ranks = tiktoken_ranks(backend)
    assert ranks is not None
    with monkeypatch.context() as patch:
        patch.setattr(tiktoken_ids, "SPLIT_PATTERN", pattern)
        fast = TiktokenIds(ranks, backend)
    assert fast.is_sure("cafe")
    assert not fast.is_sure("café")
    assert fast.is_sure("cafe 咖啡")


def test_long_runs_and_halves_of_surrogates_are_left_to_tokenizers(fast: TiktokenIds) -> None:
    assert not fast.is_sure(" " * (LONGEST + 1))
    assert not fast.is_sure("a\ud800")
    assert len(fast(" " * LONGEST))


def test_documents_are_the_same_with_and_without_tiktoken(
    backend: Tokenizer, corpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*corpus[:20], " " * (LONGEST + 1), *HARD]
    with_it = TextIds(backend.to_str(), 0, tiktoken_ranks(backend))
    monkeypatch.setattr(tokenize, "find_spec", lambda _: None)
    without = TextIds(backend.to_str(), 0, tiktoken_ranks(backend))
    assert with_it._tiktoken is not None
    assert without._tiktoken is None
    for one, other in zip(with_it(texts), without(texts), strict=True):
        np.testing.assert_array_equal(one, other)
