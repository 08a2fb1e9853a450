"""Vocabularies in tiktoken's format, with tiktoken as the oracle."""

from __future__ import annotations

import base64
import unicodedata
from pathlib import Path
from typing import get_args

import pytest
import tiktoken
from tiktoken._educational import SimpleBytePairEncoding  # type: ignore[import-untyped]

from mengya.errors import UserError
from mengya.tokenizer.load import encode_texts
from mengya.tokenizer.tiktoken_ranks import RULES, Split
from mengya.tokenizer.vocabulary_file import PROBES, prove, read_vocabulary_file


@pytest.fixture(scope="session", name="ranks")
def vocabulary_ranks(corpus: list[str]) -> dict[bytes, int]:
    """As tiktoken's own teaching code trains them."""
    text = "\n".join(corpus[:60])
    trained = SimpleBytePairEncoding.train(text, vocab_size=330, pat_str=RULES["qwen2"].pattern)
    return trained.mergeable_ranks


def write(path: Path, ranks: dict[bytes, int]) -> Path:
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items())
    path.write_text("".join(lines), "utf-8")
    return path


@pytest.mark.parametrize("split", get_args(Split))
def test_ids_are_those_of_tiktoken(
    split: Split, ranks: dict[bytes, int], corpus: list[str], tmp_path: Path
) -> None:
    vocabulary = read_vocabulary_file(write(tmp_path / "x.tiktoken", ranks), split)
    theirs = tiktoken.Encoding(
        "x", pat_str=RULES[split].pattern, mergeable_ranks=ranks, special_tokens={}
    )
    texts = [*PROBES, *corpus]
    for text, ids in zip(texts, encode_texts(vocabulary.tokenizer, texts), strict=True):
        plain = unicodedata.normalize("NFC", text) if RULES[split].composed else text
        assert ids == theirs.encode_ordinary(plain), text
        assert vocabulary.tokenizer.decode(ids) == plain
    assert prove(vocabulary, texts).texts == len(texts)
    assert vocabulary.tokenizer.convert_tokens_to_ids("<|endoftext|>") == len(ranks)


def test_a_word_that_merging_does_not_find_is_taken_as_it_is(
    ranks: dict[bytes, int], tmp_path: Path
) -> None:
    more = ranks | {"桃花开了呢".encode(): len(ranks)}
    vocabulary = read_vocabulary_file(write(tmp_path / "x.tiktoken", more), "qwen2")
    assert encode_texts(vocabulary.tokenizer, ["桃花开了呢"]) == [[len(ranks)]]
    assert prove(vocabulary, ["桃花开了呢", "看桃花开了呢"]).texts == 2


def test_the_rule_is_asked_for_where_the_file_does_not_tell(
    ranks: dict[bytes, int], tmp_path: Path
) -> None:
    path = write(tmp_path / "x.tiktoken", ranks)
    with pytest.raises(UserError, match="write split=qwen2 or split=llama3"):
        read_vocabulary_file(path)
    assert read_vocabulary_file(path, "llama3").kind == "tiktoken"
