"""The hostile texts and the conversations: how many, of what kinds, and always the same."""

from __future__ import annotations

import unicodedata

from mengya.export.parity.conversations import CONVERSATIONS
from mengya.export.parity.held_out import first_held_out, own_held_out, windows
from mengya.export.parity.texts import COUNT, hostile_texts

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]


def test_two_hundred_different_texts_that_every_program_can_be_given() -> None:
    texts = hostile_texts(SPECIAL, list("春眠不觉晓处处闻啼鸟"))
    assert len(texts) == COUNT == 200
    assert len(set(texts)) > 190
    assert texts == hostile_texts(SPECIAL, list("春眠不觉晓处处闻啼鸟"))
    assert not any("\0" in text for text in texts)
    for text in texts:
        text.encode()  # no half of a surrogate pair


def test_the_texts_are_of_all_the_kinds_that_tokenizers_trip_over() -> None:
    text = "".join(hostile_texts(SPECIAL, ["词"]))
    assert "" in hostile_texts(SPECIAL, ["词"])
    categories = {unicodedata.category(c) for c in text}
    assert {
        "Cc",
        "Cf",
        "Co",
        "Cn",
        "Mn",
        "Mc",
        "Nd",
        "Nl",
        "No",
        "So",
        "Zl",
        "Zp",
        "Zs",
    } <= categories
    assert any("\U00020000" <= c <= "\U0002a6df" for c in text)
    for piece in ("\u200d", "\r\n", "\t", "臺", "ＡＢＣ", "https://", "{%-", *SPECIAL):
        assert piece in text


def test_ten_conversations_of_every_kind() -> None:
    assert len(CONVERSATIONS) == 10
    roles = {message["role"] for chat in CONVERSATIONS for message in chat.messages}
    assert roles == {"system", "user", "assistant", "tool"}
    assert {chat.enable_thinking for chat in CONVERSATIONS} == {None, True, False}
    assert sum(bool(chat.tools) for chat in CONVERSATIONS) == 2
    assert any(chat.messages[0] == {"role": "system", "content": ""} for chat in CONVERSATIONS)


def test_every_token_is_predicted_once() -> None:
    ids = list(range(100))
    pieces = list(windows(ids, 16))
    assert [id_ for piece in pieces for id_ in piece[1:]] == ids[1:]
    assert max(map(len, pieces)) == 16


def test_held_out_text_is_cut_at_a_number_of_characters() -> None:
    taken = first_held_out("x", iter(["", "一二三", "四五六", "七"]), 5)
    assert taken.texts == ("一二三", "四五") and taken.characters == 5
    assert own_held_out().characters > 900
