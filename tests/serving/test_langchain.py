"""LangChain's own OpenAI client against the server, where it is installed (`pip install langchain-openai`).

The model is a random one: what it says means nothing, so what is tested is that the client understands
it, and that calls and JSON keep to their schemas, which the server's grammar sees to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from tests.helpers.live_server import POEM, Running

langchain_openai = pytest.importorskip("langchain_openai")
messages = pytest.importorskip("langchain_core.messages")
tools = pytest.importorskip("langchain_core.tools")


Digit = Annotated[int, Field(ge=0, le=9)]  # a random model would write digits for ever


class Answer(BaseModel):
    """An answer with its season."""

    season: Literal["春", "夏"]
    sure: bool
    stars: int = Field(ge=1, le=5)


@pytest.fixture
def chat(server: Running) -> Callable[..., Any]:
    def make(**settings: Any) -> Any:
        return langchain_openai.ChatOpenAI(
            base_url=f"{server.url}/v1", api_key="none", model="tiny", max_retries=0, **settings
        )

    return make


def test_invoke_and_batch(chat: Callable[..., Any]) -> None:
    model = chat(max_tokens=8, temperature=0)
    one = model.invoke([("system", "你是诗人。"), ("human", POEM)])
    assert one.content and one.response_metadata["finish_reason"] == "length"
    assert one.usage_metadata["output_tokens"] == 8
    assert [m.content for m in model.batch([[("human", POEM)]] * 3)] == [
        model.invoke([("human", POEM)]).content
    ] * 3


def test_streaming_gives_the_same_text_and_the_usage(chat: Callable[..., Any]) -> None:
    model = chat(max_tokens=20, temperature=0, stream_usage=True)
    chunks = list(model.stream(POEM))
    full = chunks[0]
    for chunk in chunks[1:]:
        full += chunk
    assert len(chunks) > 5
    assert full.content == model.invoke(POEM).content
    assert full.usage_metadata["output_tokens"] == 20


def test_log_probabilities_and_seed(chat: Callable[..., Any]) -> None:
    model = chat(max_tokens=5, temperature=1, seed=3, logprobs=True, top_logprobs=2)
    one, other = model.invoke(POEM), model.invoke(POEM)
    assert one.content == other.content
    assert [len(t["top_logprobs"]) for t in one.response_metadata["logprobs"]["content"]] == [2] * 5


def test_tools(chat: Callable[..., Any]) -> None:
    @tools.tool
    def add(a: Digit, b: bool) -> str:
        """Add two numbers."""
        return str(a + b)

    model = chat(max_tokens=-1, temperature=0).bind_tools([add], tool_choice="add", strict=True)
    asked = messages.HumanMessage("一加一？")
    reply = model.invoke([asked])
    (call,) = reply.tool_calls
    assert (
        call["name"] == "add" and set(call["args"]) == {"a", "b"} and not reply.invalid_tool_calls
    )
    streamed = None
    for chunk in model.stream([asked]):
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed is not None
    assert [c["args"] for c in streamed.tool_calls] == [call["args"]]
    result = messages.ToolMessage(add.invoke(call["args"]), tool_call_id=call["id"])
    last = chat(max_tokens=5).bind_tools([add]).invoke([asked, reply, result])
    assert last.response_metadata["finish_reason"] in ("stop", "length", "tool_calls")


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(chat: Callable[..., Any], method: str) -> None:
    model = chat(max_tokens=-1, temperature=0).with_structured_output(
        Answer, method=method, strict=True
    )
    assert isinstance(model.invoke(POEM), Answer)


def test_embeddings(server: Running) -> None:
    embeddings = langchain_openai.OpenAIEmbeddings(
        base_url=f"{server.url}/v1", api_key="none", model="tiny", check_embedding_ctx_length=False
    )
    first, second = embeddings.embed_documents([POEM, "春"])
    assert len(first) == 48 and first != second
    assert first == pytest.approx(embeddings.embed_query(POEM), abs=1e-6)
