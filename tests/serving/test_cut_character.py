"""A reply that the limit cuts inside a character ends before it."""

from __future__ import annotations

from typing import Any

import openai

from mengya.generation.chat_session import ChatSession
from mengya.generation.sampling import SamplingParams
from tests.helpers.live_server import tiny_model

USER: list[Any] = [{"role": "user", "content": "写"}]


def first_two_bytes(tokenizer) -> dict[int, int]:
    ids = [tokenizer.convert_tokens_to_ids(t) for t in tokenizer.tokenize("龘")]
    return {ids[0]: 100, ids[1]: 99}


def test_over_the_api(client: openai.OpenAI, tokenizer) -> None:
    bias = {str(token): value for token, value in first_two_bytes(tokenizer).items()}
    reply = client.chat.completions.create(
        model="tiny", messages=USER, max_tokens=1, temperature=0, logit_bias=bias
    )
    assert reply.choices[0].finish_reason == "length"
    assert reply.choices[0].message.content == ""
    text = client.completions.create(
        model="tiny", prompt="写", max_tokens=1, temperature=0, logit_bias=bias
    )
    assert text.choices[0].text == ""


def test_in_the_terminals_history(tokenizer) -> None:
    params = SamplingParams(
        max_new_tokens=1, temperature=0, logit_bias={**first_two_bytes(tokenizer)}
    )
    session = ChatSession(tiny_model(), tokenizer, params)
    assert "".join(session.reply("写")) == "" and session.messages[-1]["content"] == ""
