"""/tokenize and /detokenize give the ids that the model sees."""

from __future__ import annotations

from typing import Any

import pytest

from mengya.tokenizer.chat_template import encode_prompt
from mengya.tokenizer.load import document_token_id
from tests.helpers.learned_chat import TOOLS
from tests.helpers.live_server import CONTEXT, Running

USER: list[Any] = [{"role": "user", "content": "春眠不觉晓"}]


def post(server: Running, path: str, **body: Any) -> Any:
    return server.http.post(path, json=body)


def test_a_text_and_back(server: Running, tokenizer) -> None:
    ids = tokenizer.encode("春眠龘", add_special_tokens=False)
    with_document = post(server, "/tokenize", model="tiny", prompt="春眠龘").json()
    assert with_document["tokens"] == [document_token_id(tokenizer), *ids]
    assert with_document["max_model_len"] == CONTEXT
    usage = server.client.completions.create(model="tiny", prompt="春眠龘", max_tokens=1).usage
    assert usage is not None and with_document["count"] == usage.prompt_tokens
    bare = post(
        server, "/tokenize", prompt="春眠龘", add_special_tokens=False, return_token_strs=True
    ).json()
    assert bare["tokens"] == ids and len(bare["token_strs"]) == len(ids)
    assert post(server, "/detokenize", tokens=ids).json() == {"prompt": "春眠龘"}


def test_a_conversation(server: Running, tokenizer) -> None:
    made = post(server, "/tokenize", model="tiny", messages=USER, tools=TOOLS).json()
    assert made["tokens"] == encode_prompt(tokenizer, USER, TOOLS)
    off = post(server, "/tokenize", messages=USER, chat_template_kwargs={"enable_thinking": False})
    assert off.json()["tokens"] == encode_prompt(tokenizer, USER, enable_thinking=False)
    begun = [*USER, {"role": "assistant", "content": "处"}]
    open_ = post(server, "/tokenize", messages=begun, continue_final_message=True).json()
    more = tokenizer.encode("处", add_special_tokens=False)
    assert open_["tokens"] == [*encode_prompt(tokenizer, USER), *more]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, None),
        ("/tokenize", {"prompt": "x", "messages": USER}, "prompt"),
        ("/tokenize", {"prompt": "x", "tools": TOOLS}, "tools"),
        ("/tokenize", {"prompt": "x", "model": "y"}, "model"),
        ("/detokenize", {"tokens": [300]}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens.0"),
    ],
)
def test_what_is_refused(server: Running, path: str, body: Any, param: str | None) -> None:
    response = post(server, path, **body)
    assert response.status_code in (400, 404)
    assert response.json()["error"]["param"] == param
