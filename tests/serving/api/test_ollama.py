"""ollama's API through the real ollama client."""

from __future__ import annotations

import json
from typing import Any

import ollama
import pytest

from mengya.generation.batch.engine import BatchEngine, EngineConfig
from mengya.serving.runtime.served import Served, ServedName
from mengya.tokenizer.chat_template import encode_prompt
from tests.helpers.learned_chat import ASKED, CALLED, RESULTS, THOUGHT, TOOLS
from tests.helpers.live_server import CONTEXT, Running, serving, tiny_model

USER: list[Any] = [{"role": "user", "content": "春眠不觉晓"}]
GREEDY = {"temperature": 0, "num_predict": 12}


def client_of(server: Running, key: str = "none") -> Any:
    return ollama.Client(server.url, headers={"Authorization": f"Bearer {key}"})


def chat(server: Running, **more: Any) -> Any:
    return client_of(server).chat(**{"model": "tiny", "messages": USER, "options": GREEDY, **more})


def openai_text(server: Running, messages: list[Any] = USER, **more: Any) -> str:
    body = {"model": "tiny", "messages": messages, "max_tokens": 12, "temperature": 0, **more}
    return server.client.chat.completions.create(**body).choices[0].message.content or ""


def test_the_reply_is_the_models_own(server: Running, tokenizer) -> None:
    reply = chat(server, model="tiny:latest")
    assert reply.message.content == openai_text(server) and reply.message.role == "assistant"
    assert reply.done and reply.done_reason == "length" and reply.model == "tiny:latest"
    assert reply.prompt_eval_count == len(encode_prompt(tokenizer, USER))
    assert reply.eval_count == 12
    assert reply.total_duration >= reply.prompt_eval_duration > 0
    drawn = {"temperature": 1.2, "seed": 7, "top_k": 40, "min_p": 0.01, "repeat_penalty": 1.3}
    same = {"temperature": 1.2, "seed": 7, "extra_body": {
        "top_k": 40, "min_p": 0.01, "repetition_penalty": 1.3}}  # fmt: skip
    again = chat(server, options={**drawn, "num_predict": 12})
    assert again.message.content == openai_text(server, **same)


def test_a_stream_is_lines_of_json(server: Running) -> None:
    full = chat(server).message.content
    *parts, last = chat(server, stream=True)
    assert "".join(part.message.content for part in parts) == full and len(parts) > 3
    assert not any(part.done for part in parts)
    assert last.done and last.done_reason == "length" and last.eval_count == 12
    raw = server.http.post("/api/chat", json={"model": "tiny", "messages": USER, "options": GREEDY})
    assert raw.headers["content-type"].startswith("application/x-ndjson")
    assert json.loads(raw.text.splitlines()[-1])["done"] is True


@pytest.mark.parametrize("stream", [False, True])
def test_a_round_of_tools(learned_server: Running, tokenizer, stream: bool) -> None:
    """Sent as JSON: the client leaves out of schemas what it does not know, and so changes the prompt."""

    def post(messages: list[Any], stream: bool = False) -> list[Any]:
        body = {"model": "tiny", "messages": messages, "tools": TOOLS, "stream": stream,
                "options": {"temperature": 0}}  # fmt: skip
        lines = learned_server.http.post("/api/chat", json=body).text.splitlines()
        return [ollama.ChatResponse(**json.loads(line)) for line in lines]

    parts = post(ASKED, stream)
    calls = [call for part in parts for call in part.message.tool_calls or []]
    content = "".join(part.message.content for part in parts)
    assert content == "我算🙂。" and parts[-1].done_reason == "stop"
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("add", {"a": 1, "b": 2}), ("now", {}),
    ]  # fmt: skip
    sent = {"role": "assistant", "content": content,
            "tool_calls": [call.model_dump() for call in calls]}  # fmt: skip
    results = [{**result, "tool_name": "f"} for result in RESULTS]
    (second,) = post([*ASKED, sent, *results])
    assert second.message.content == "是三。"
    expected = encode_prompt(tokenizer, [*CALLED, *RESULTS], TOOLS)
    assert second.prompt_eval_count == len(expected)
    # The client's own objects go out and come in.
    assert chat(learned_server, messages=[*ASKED, parts[0].message], tools=TOOLS).done


@pytest.mark.parametrize("stream", [False, True])
def test_thinking(learned_server: Running, tokenizer, stream: bool) -> None:
    more = {"messages": THOUGHT[:1], "options": {"temperature": 0}}
    parts = list(chat(learned_server, stream=True, **more)) if stream else []
    full = [part.message for part in parts] or [chat(learned_server, **more).message]
    assert "".join(one.thinking or "" for one in full) == "龘字难写"
    assert "".join(one.content for one in full) == "好的𠮷"
    off = chat(learned_server, messages=THOUGHT[:1], think=False)
    expected = encode_prompt(tokenizer, THOUGHT[:1], enable_thinking=False)
    assert off.prompt_eval_count == len(expected)


def test_generate_through_the_chat_template(server: Running) -> None:
    client = client_of(server)
    more: Any = {"model": "tiny", "prompt": "春眠不觉晓", "system": "答", "options": GREEDY}
    ours = [{"role": "system", "content": "答"}, *USER]
    assert client.generate(**more).response == openai_text(server, ours)
    parts = list(client.generate(**more, stream=True))
    assert "".join(part.response for part in parts) == openai_text(server, ours)
    assert parts[-1].done_reason == "length"


def test_generate_continues_a_raw_text(server: Running, tokenizer) -> None:
    expected = server.client.completions.create(
        model="tiny", prompt="春眠", max_tokens=12, temperature=0
    )
    more: Any = {"model": "tiny", "prompt": "春眠", "options": GREEDY}
    reply = client_of(server).generate(**more, raw=True, logprobs=True, top_logprobs=2)
    assert reply.response == expected.choices[0].text
    assert expected.usage and reply.prompt_eval_count == expected.usage.prompt_tokens
    assert reply.logprobs and len(reply.logprobs[0].top_logprobs or []) == 2

    def load() -> Served:
        model = tiny_model()
        return Served(
            BatchEngine(model, EngineConfig()), model, tokenizer, {"tiny": ServedName("base")}
        )

    with serving(tokenizer, load=load) as base:
        assert client_of(base).generate(**more).response == reply.response
        with pytest.raises(ollama.ResponseError, match=r"^system: "):
            client_of(base).generate(**more, system="答")
        assert "tools" not in (client_of(base).show("tiny").capabilities or [])


def test_json(server: Running) -> None:
    schema = {
        "type": "object", "properties": {"城市": {"enum": ["北京", "上海"]}}, "required": ["城市"],
        "additionalProperties": False,
    }  # fmt: skip
    reply = chat(server, format=schema, options={"num_predict": 100})
    assert json.loads(reply.message.content)["城市"] in ("北京", "上海")
    made = client_of(server).generate("tiny", "春", format="json", options={"num_predict": 8})
    assert made.response.startswith("{")


def test_without_a_prompt_only_the_model_is_asked_for(server: Running) -> None:
    assert client_of(server).generate("tiny").done_reason == "load"
    assert chat(server, messages=[]).done_reason == "load"


def test_stop(learned_server: Running) -> None:
    options = {"temperature": 0, "stop": ["的"]}
    reply = chat(learned_server, messages=THOUGHT[:1], options=options)
    assert reply.message.content == "好" and reply.done_reason == "stop"


def test_what_there_is(server: Running, tokenizer) -> None:
    client = client_of(server)
    (tag,) = client.list().models
    assert tag.model == "tiny" and tag.size and tag.details and tag.details.family
    shown = client.show("tiny:latest")
    assert {"completion", "tools", "thinking"} == set(shown.capabilities or [])
    info = shown.modelinfo or {}
    assert info[f"{info['general.architecture']}.context_length"] == CONTEXT
    assert "im_start" in (shown.template or "")
    version = server.http.get("/api/version").json()["version"]
    assert tuple(map(int, version.split("."))) >= (0, 6, 4)  # what GitHub Copilot asks for
    assert server.http.head("/api/version").status_code == 200


def test_what_has_no_effect_is_named(server: Running) -> None:
    body = {"model": "tiny", "messages": USER, "stream": False, "keep_alive": "5m",
            "options": {"num_ctx": 4096, "num_predict": 1, "mirostat": 0}}  # fmt: skip
    reply = server.http.post("/api/chat", json=body)
    assert reply.status_code == 200
    assert reply.headers["x-mengya-ignored"] == "keep_alive; options.num_ctx"
    loose = {"type": "array", "items": {"enum": [1]}, "maxItems": 1, "uniqueItems": True}
    reply = server.http.post("/api/chat", json={**body, "format": loose})
    assert "; format: " in reply.headers["x-mengya-ignored"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an image": ({"messages": [{**USER[0], "images": ["aGk="]}]}, "messages.0.images: "),
    "an option": ({"options": {"mirostat": 2}}, "options.mirostat: "),
    "an unknown option": ({"options": {"x": 2}}, "options.x"),
    "temperature": ({"options": {"temperature": 3}}, "options.temperature: "),
    "too much": ({"options": {"num_predict": 100_000}}, "(options.num_predict): ask for"),
    "a form and tools": ({"format": "json", "tools": TOOLS}, "send no tools, or no format"),
    "a schema": ({"format": {"type": "objekt"}}, "the JSON schema cannot be enforced"),
    "top_logprobs": ({"top_logprobs": 2}, "top_logprobs needs logprobs=true"),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_ollamas(server: Running, name: str) -> None:
    changes, said = WRONG[name]
    body = {"model": "tiny", "messages": USER, "stream": False, **changes}
    response = server.http.post("/api/chat", json=body)
    assert response.status_code == 400 and set(response.json()) == {"error"}
    assert said in response.json()["error"]
    if name == "too much":  # what it says to type is taken
        assert chat(server, options={"num_predict": -1, "stop": ["。"]}).done


def test_other_errors(server: Running, tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ollama.ResponseError, match="GET /api/tags") as caught:
        chat(server, model="x")
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="take /v1 out of base_url"):
        ollama.Client(f"{server.url}/v1").chat("tiny", USER)
    missing = server.http.get("/api/nothing")
    assert missing.status_code == 404 and isinstance(missing.json()["error"], str)
    assert server.http.get("/api/chat").status_code == 405
    with serving(tokenizer, key="k") as guarded:
        with pytest.raises(ollama.ResponseError, match="API key"):
            client_of(guarded, "x").list()
        assert client_of(guarded, "k").list().models

        def broken() -> None:
            raise RuntimeError("x")

        monkeypatch.setattr(guarded.service.served().engine, "step", broken, raising=False)
        with pytest.raises(ollama.ResponseError, match="given up"):
            list(client_of(guarded, "k").chat("tiny", USER, stream=True))
