"""The numbers of a comparison, checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mengya.errors import UserError
from mengya.tokenizer.compare import CODE, NUMBERS, compare
from mengya.tokenizer.load import encode_texts

NAMES = ["Chinese", "other"]


def scripts(text: str) -> np.ndarray:
    return np.array([0 if "\u4e00" <= c <= "\u9fff" else 1 for c in text], np.int64)


def test_by_hand(tokenizer) -> None:
    domains = {"a": ["春天来了，院子。", "龘"], "b": ["it's 12:30 now"], "empty": [""]}
    found = compare(tokenizer, domains, scripts, NAMES, context=5, hidden_size=64)
    ids = {name: encode_texts(tokenizer, texts) for name, texts in domains.items()}
    assert set(found.domains) == {"a", "b"}
    for name, part in found.domains.items():
        assert part.tokens == sum(map(len, ids[name]))
        assert part.characters_per_token == sum(map(len, domains[name])) / part.tokens
        assert part.bytes == sum(len(t.encode()) for t in domains[name])
    everything = sum(map(len, (row for rows in ids.values() for row in rows)))
    assert sum(part.tokens for part in found.scripts.values()) == pytest.approx(everything)
    assert found.scripts["Chinese"].characters == 7 and found.scripts["Chinese"].bytes == 21
    assert found.embedding_parameters == 64 * 500
    (rare,) = encode_texts(tokenizer, ["龘"])
    assert len(rare) == 3 and found.byte_tokens >= 3 / everything
    assert found.numbers["1234567"] == list("1234567") and set(found.numbers) == set(NUMBERS)
    assert found.code == len(CODE) / len(encode_texts(tokenizer, [CODE])[0])
    four = [len(encode_texts(tokenizer, [t])[0]) for t in ("x:\n    y", "x:\ny")]
    assert found.indentation[4] == four[0] - four[1]
    assert found.megabytes_per_second > 0 and found.total.documents == 3


def test_a_token_of_several_characters_counts_as_a_part_for_each(tokenizer) -> None:
    text = "机器学习quick"
    found = compare(tokenizer, {"a": [text]}, scripts, NAMES)
    (ids,) = encode_texts(tokenizer, [text])
    chinese = len(encode_texts(tokenizer, ["机器学习"])[0])
    assert chinese < len(ids)
    assert found.scripts["Chinese"].tokens == pytest.approx(chinese)
    assert found.scripts["other"].tokens == pytest.approx(len(ids) - chinese)


def test_no_text_is_refused(tokenizer) -> None:
    with pytest.raises(UserError, match="no text"):
        compare(tokenizer, {"a": [""]}, scripts, NAMES)
