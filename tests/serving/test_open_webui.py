"""What Open WebUI asks, as its own server was seen to ask it.

Recorded on 2026-11-25 from open-webui 0.12.4 (offline, OPENAI_API_BASE_URL set to this server): the list
of models; a chat from its API; a chat from its page, which streams, asks for the usage and offers the
page's own tools; then, not streamed, follow-up questions, a title and tags. The bodies have the same
fields and types; texts and tools are shorter and ours.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.helpers.live_server import Running

ASKED = {"role": "user", "content": "春眠不觉晓"}
TASK = {"role": "user", "content": "### 任务\n为这次对话起一个标题，只写 JSON。"}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {
        "name": "get_time", "description": "现在的时间。",
        "parameters": {"properties": {}, "type": "object"}}},
    {"type": "function", "function": {
        "name": "shift_time", "description": "几天以前。\n例：昨天是 1。",
        "parameters": {"type": "object", "properties": {
            "days": {"type": "integer", "default": 0, "description": "多少天"}}}}},
]  # fmt: skip
BODIES: dict[str, dict[str, Any]] = {
    "api": {"messages": [ASKED], "stream": False, "max_tokens": 8},
    "api streamed": {"messages": [ASKED], "stream": True, "max_tokens": 8},
    "page": {
        "stream": True, "messages": [ASKED], "stream_options": {"include_usage": True},
        "max_tokens": 16, "temperature": 0.7, "tools": TOOLS,
    },
    "follow-ups, title, tags": {"messages": [TASK], "stream": False, "max_tokens": 16},
}  # fmt: skip


def test_the_list_of_models(server: Running) -> None:
    cards = server.http.get("/v1/models").json()
    assert cards["object"] == "list" and [card["id"] for card in cards["data"]] == ["tiny"]


@pytest.mark.parametrize("name", BODIES)
def test_chats(server: Running, name: str) -> None:
    body = {"model": "tiny", **BODIES[name]}
    answer = server.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    if not body["stream"]:
        assert answer.json()["choices"][0]["message"]["role"] == "assistant"
        return
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    ends = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]]
    assert ends[-1] in ("stop", "length") and not any(ends[:-1])
    if "stream_options" in body:
        assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] <= 16
