import random

import pytest

from mengya.tokenizer.load import encode_texts
from mengya.tokenizer.stream import TextStream

TEXTS = [
    "你好，世界！👨‍👩‍👧‍👦🇨🇳 龘𠮷",
    "mixed 中文 and English\n\n换行",
    "🙂" * 40,
    "legit \ufffd sign 后",
]


def pieces_of(tokenizer, ids: list[int], skip_special_tokens: bool = True) -> list[str]:
    stream = TextStream(tokenizer, skip_special_tokens)
    return [piece for piece in (*map(stream.push, ids), stream.flush()) if piece]


@pytest.mark.parametrize("text", TEXTS)
def test_characters_split_across_tokens_arrive_complete(tokenizer, text: str) -> None:
    ids = encode_texts(tokenizer, [text])[0]
    pieces = pieces_of(tokenizer, ids)
    assert "".join(pieces) == text
    assert len(ids) > len(text) / 2  # the tokenizer really does split these characters
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_broken_bytes_equal_the_full_decoding_and_never_stall(tokenizer) -> None:
    generator = random.Random(0)
    for _ in range(200):
        ids = [generator.randrange(16, 300) for _ in range(60)]
        stream = TextStream(tokenizer)
        shown = "".join(stream.push(i) for i in ids)
        uncut = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        assert uncut.startswith(shown) and len(uncut) - len(shown) <= 1
        assert shown + stream.flush() == uncut


def test_special_tokens_are_hidden_and_tags_shown(tokenizer) -> None:
    ids = tokenizer.encode("<think>好</think><|im_end|>", add_special_tokens=False)
    assert "".join(pieces_of(tokenizer, ids)) == "<think>好</think>"
    assert "".join(pieces_of(tokenizer, ids, skip_special_tokens=False)).endswith("<|im_end|>")


def test_an_open_character_at_the_end_is_not_lost(tokenizer) -> None:
    ids = encode_texts(tokenizer, ["龘"])[0]
    stream = TextStream(tokenizer)
    assert [stream.push(i) for i in ids[:-1]] == [""] * (len(ids) - 1)
    assert stream.flush() == "\ufffd"
