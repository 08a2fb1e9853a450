"""Set phrases do not become single tokens."""

from __future__ import annotations

import pytest

from mengya.tokenizer.train import MAX_TOKEN_CHARACTERS, train_tokenizer

PHRASE = "直接负责的主管人员和其他直接责任人员"


@pytest.mark.parametrize("limit", [MAX_TOKEN_CHARACTERS, 4, None])
def test_the_longest_token(limit: int | None) -> None:
    texts = [f"{PHRASE}，处五年以下有期徒刑。" * 3 + str(i) for i in range(50)]
    tokenizer = train_tokenizer(texts, 500, max_token_characters=limit, show_progress=False)
    learned = tokenizer.convert_ids_to_tokens(list(range(272, len(tokenizer))))
    longest = max(map(len, learned))  # a character of these is a byte
    assert longest > 3 * len(PHRASE) - 1 if limit is None else 2 * limit <= longest <= 3 * limit
    ids = tokenizer.backend_tokenizer.encode(PHRASE).ids
    assert tokenizer.decode(ids) == PHRASE and (limit is None or len(ids) > 1)
