"""A run's reply in the form of ollama's API: one body, or a line of JSON for each piece; and its errors.

Times are in nanoseconds, as there.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from mengya.serving.api.answers import Run
from mengya.serving.api.chat import logprobs_of
from mengya.serving.api.responses import TokenLogprob, new_id
from mengya.serving.runtime.choice import Piece
from mengya.web.errors import ApiError
from mengya.web.events import StreamForm, one_line


def iso_time(seconds: float | None = None) -> str:
    """A time, now without one, as ollama writes it."""
    when = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return when.isoformat().replace("+00:00", "Z")


class FunctionReply(BaseModel):
    index: int
    name: str
    arguments: dict[str, Any]


class ToolCallReply(BaseModel):
    id: str
    function: FunctionReply


class MessageReply(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    thinking: str | None = None
    tool_calls: list[ToolCallReply] | None = None


class _Part(BaseModel):
    """A piece of an answer; the last one, or the only one, brings the figures."""

    model: str
    created_at: str = Field(default_factory=iso_time)
    done: bool
    done_reason: Literal["stop", "length", "load"] | None = None
    logprobs: list[TokenLogprob] | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


class ChatPart(_Part):
    """An answer of /api/chat, or a line of it."""

    message: MessageReply


class TextPart(_Part):
    """An answer of /api/generate, or a line of it."""

    response: str
    thinking: str | None = None


class OllamaError(BaseModel):
    """The body of every answer whose status is 400 or above."""

    error: str


def error_body(error: ApiError) -> dict[str, Any]:
    """An error in ollama's form."""
    return OllamaError(error=error.message).model_dump()


def line(part: BaseModel) -> str:
    """One line of a stream; what is not there is left out, as ollama does."""
    return one_line(part.model_dump_json(exclude_none=True)) + "\n"


FORM = StreamForm(
    failed=lambda error: line(OllamaError(error=error.message)),
    end="",
    media_type="application/x-ndjson",
)


class Writer:
    """Writes the pieces of one answer.

    Args:
        model: the name that the client asked for.
        chat: for /api/chat; else for /api/generate.
    """

    def __init__(self, run: Run, model: str, *, chat: bool) -> None:
        self._run, self._model, self._chat = run, model, chat
        self._began = time.perf_counter_ns()
        self._first: int | None = None
        self._calls = 0

    async def body(self) -> ChatPart | TextPart:
        """The complete answer."""
        full = Piece()
        async for piece in self._pieces():
            full.add(piece)
        return self._part(full)

    async def lines(self) -> AsyncGenerator[str, None]:
        """The answer as it comes; the last line has no text."""
        async for piece in self._pieces():
            finish, piece.finish = piece.finish, None
            if piece.content or piece.reasoning or piece.calls or piece.tokens:
                yield line(self._part(piece))
            if finish is not None:
                yield line(self._part(Piece(finish=finish)))

    async def _pieces(self) -> AsyncGenerator[Piece, None]:
        async for _, piece in self._run.pieces():
            self._first = self._first or time.perf_counter_ns()
            yield piece

    def _part(self, piece: Piece) -> ChatPart | TextPart:
        values: dict[str, Any] = {"model": self._model, "done": piece.finish is not None}
        if piece.tokens:
            values["logprobs"] = logprobs_of(piece.tokens, self._run.token_text).content
        if piece.finish is not None:
            values["done_reason"] = "length" if piece.finish == "length" else "stop"
            values |= self._figures()
        if not self._chat:
            return TextPart(**values, response=piece.content, thinking=piece.reasoning or None)
        calls = [
            ToolCallReply(
                id=new_id("call"),
                function=FunctionReply(index=i, name=call.name, arguments=call.object or {}),
            )
            for i, call in enumerate(piece.calls, self._calls)
        ]
        self._calls += len(calls)
        message = MessageReply(
            content=piece.content, thinking=piece.reasoning or None, tool_calls=calls or None
        )
        return ChatPart(**values, message=message)

    def _figures(self) -> dict[str, int]:
        now = time.perf_counter_ns()
        first = self._first or now
        return {
            "total_duration": now - self._began,
            "load_duration": 0,
            "prompt_eval_count": self._run.session.prompt_tokens,
            "prompt_eval_duration": first - self._began,
            "eval_count": self._run.session.completion_tokens,
            "eval_duration": now - first,
        }


def loaded(model: str, *, chat: bool) -> ChatPart | TextPart:
    """The answer to a request without a prompt: the model is there."""
    if chat:
        return ChatPart(
            model=model, done=True, done_reason="load", message=MessageReply(content="")
        )
    return TextPart(model=model, done=True, done_reason="load", response="")
