"""Tokenizers of others: the split rules that llama.cpp has, and those that it has not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.export.gguf.vocabulary import composes_characters, read_vocabulary
from mengya.tokenizer.word_split import SPLIT_PATTERN
from tests.helpers.export_source import small_tokenizer

LLAMA3 = SPLIT_PATTERN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    parts: list[Any] = [
        pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    return pre_tokenizers.Sequence(parts)


def tokenizer_of(rule: pre_tokenizers.PreTokenizer, **model: Any) -> PreTrainedTokenizerFast:
    alphabet = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(alphabet | {"ab": 256}, [("a", "b")], **model))
    backend.pre_tokenizer, backend.decoder = rule, decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


@pytest.mark.parametrize(
    ("tokenizer", "pre"),
    [
        (tokenizer_of(split(SPLIT_PATTERN)), "qwen2"),
        (tokenizer_of(split(LLAMA3), ignore_merges=True), "llama-bpe"),
        (tokenizer_of(pre_tokenizers.ByteLevel(add_prefix_space=False)), "gpt-2"),
    ],
)
def test_known_rules(tokenizer: PreTrainedTokenizerFast, pre: str) -> None:
    vocabulary = read_vocabulary(tokenizer, 260)
    assert vocabulary.pre == pre
    assert vocabulary.merges == ["a b"]
    assert vocabulary.tokens[256:] == ["ab", "<|endoftext|>", "[PAD258]", "[PAD259]"]
    assert (vocabulary.stop, vocabulary.bos) == ([257, 257], 257)


@pytest.mark.parametrize(
    "tokenizer",
    [
        tokenizer_of(split(r"\p{L}+|.")),
        tokenizer_of(split(LLAMA3)),  # llama.cpp would look words up before it merges
        tokenizer_of(split(SPLIT_PATTERN), ignore_merges=True),
        tokenizer_of(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    ],
)
def test_other_rules_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"splits text.*to=hf"):
        read_vocabulary(tokenizer, 258)


def test_other_kinds_are_refused() -> None:
    backend = Tokenizer(models.WordLevel({"你": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="你")
    with pytest.raises(UserError, match=r"WordLevel.*byte-level BPE.*to=hf"):
        read_vocabulary(words, 2)


def test_normalizers_and_stripping_tokens_are_refused() -> None:
    tokenizer = copy.deepcopy(small_tokenizer())
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(UserError, match=r"Lowercase.*to=hf"):
        read_vocabulary(tokenizer, len(tokenizer))
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    assert composes_characters(tokenizer)
    assert read_vocabulary(tokenizer, len(tokenizer)).pre == "qwen2"
    tokenizer = copy.deepcopy(small_tokenizer())
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True)])
    with pytest.raises(UserError, match=r"'<mask>' has lstrip=true.*tokenizer\.json"):
        read_vocabulary(tokenizer, len(tokenizer))
