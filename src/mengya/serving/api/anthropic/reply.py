"""A run's reply in the form of Anthropic's Messages API: one body, or its events; and its errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from mengya.serving.api.answers import Run
from mengya.serving.api.reply_blocks import Block, Blocks, Kind, Step, all_blocks
from mengya.serving.api.responses import new_id
from mengya.web.errors import ApiError
from mengya.web.events import StreamForm, typed_event

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class TextReply(BaseModel):
    type: Literal["text"] = "text"
    text: str
    citations: None = None


class ThinkingReply(BaseModel):
    """Reasoning; the signature is empty, for nothing is signed here."""

    type: Literal["thinking"] = "thinking"
    thinking: str
    signature: str = ""


class ToolUseReply(BaseModel):
    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, Any]


BlockReply = Annotated[TextReply | ThinkingReply | ToolUseReply, Field(discriminator="type")]


class AnthropicUsage(BaseModel):
    """The prompt's tokens are input_tokens and cache_read_input_tokens together."""

    input_tokens: int
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    output_tokens: int


class AnthropicMessage(BaseModel):
    """The body of an answer."""

    id: str = Field(default_factory=lambda: new_id("msg", "_"))
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[BlockReply]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: AnthropicUsage


class TokenCount(BaseModel):
    input_tokens: int


class AnthropicErrorBody(BaseModel):
    type: str
    message: str


class AnthropicError(BaseModel):
    """The body of every answer whose status is 400 or above."""

    type: Literal["error"] = "error"
    error: AnthropicErrorBody


_ERRORS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}


def error_body(error: ApiError) -> dict[str, Any]:
    """An error in Anthropic's form."""
    kind = _ERRORS.get(error.status, "invalid_request_error")
    return AnthropicError(error=AnthropicErrorBody(type=kind, message=error.message)).model_dump()


FORM = StreamForm(failed=lambda error: typed_event("error", error_body(error)), end="")


async def body(run: Run, model: str) -> AnthropicMessage:
    """The complete answer."""
    blocks = await all_blocks(run, _new_id)
    return AnthropicMessage(
        model=model,
        content=[_reply(block) for block in blocks.blocks],
        stop_reason=_stop_reason(run, blocks),
        stop_sequence=run.choices[0].stop_string,
        usage=_usage(run),
    )


async def events(run: Run, model: str) -> AsyncGenerator[str, None]:
    """The events of an answer: its blocks one after the other, between start and end."""
    start = AnthropicMessage(
        model=model, content=[], stop_reason=None, stop_sequence=None, usage=_usage(run)
    )
    yield _event("message_start", message=start.model_dump())
    blocks = Blocks(_new_id)
    async for _, piece in run.pieces():
        for step in blocks.push(piece):
            yield _step(step)
    delta = {
        "stop_reason": _stop_reason(run, blocks), "stop_sequence": run.choices[0].stop_string
    }  # fmt: skip
    yield _event("message_delta", delta=delta, usage=_usage(run).model_dump())
    yield _event("message_stop")


def _new_id(kind: Kind) -> str:
    return new_id("toolu", "_") if kind == "call" else ""


def _event(kind: str, **values: Any) -> str:
    return typed_event(kind, {"type": kind, **values})


def _step(step: Step) -> str:
    place = step.block.index
    if step.what == "open":
        return _event("content_block_start", index=place, content_block=_opened(step.block))
    if step.what == "close":
        return _event("content_block_stop", index=place)
    kind, field = {
        "reasoning": ("thinking_delta", "thinking"),
        "text": ("text_delta", "text"),
        "call": ("input_json_delta", "partial_json"),
    }[step.block.kind]
    return _event("content_block_delta", index=place, delta={"type": kind, field: step.text})


def _opened(block: Block) -> dict[str, Any]:
    """A block as it begins: empty."""
    if block.call is not None:
        return ToolUseReply(id=block.id, name=block.call.name, input={}).model_dump()
    empty = ThinkingReply(thinking="") if block.kind == "reasoning" else TextReply(text="")
    return empty.model_dump()


def _reply(block: Block) -> BlockReply:
    if block.call is not None:
        return ToolUseReply(id=block.id, name=block.call.name, input=block.call.object or {})
    if block.kind == "reasoning":
        return ThinkingReply(thinking=block.text)
    return TextReply(text=block.text)


def _stop_reason(run: Run, blocks: Blocks) -> StopReason:
    if run.choices[0].stop_string is not None:
        return "stop_sequence"
    ends: dict[str | None, StopReason] = {"length": "max_tokens", "tool_calls": "tool_use"}
    return ends.get(blocks.finish, "end_turn")


def _usage(run: Run) -> AnthropicUsage:
    session = run.session
    return AnthropicUsage(
        input_tokens=session.prompt_tokens - session.cached_tokens,
        cache_read_input_tokens=session.cached_tokens,
        output_tokens=session.completion_tokens,
    )
