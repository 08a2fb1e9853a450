"""POST /v1/chat/completions: runs a prepared request and writes its reply in OpenAI's form."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.requests import Request as HttpRequest

from mengya.serving.api.answers import Run, respond, usage_of
from mengya.serving.api.chat_protocol import ChatRequest
from mengya.serving.api.chat_run import begin
from mengya.serving.api.responses import (
    AssistantReply,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChunkChoice,
    Delta,
    FunctionDelta,
    FunctionReply,
    TokenLogprob,
    ToolCallDelta,
    ToolCallReply,
    TopLogprob,
    new_id,
    now,
)
from mengya.serving.runtime.choice import ChosenToken, Piece
from mengya.serving.runtime.service import Service
from mengya.tokenizer.token_text import TokenText
from mengya.web.events import EventStream, event


async def answer(
    service: Service, request: ChatRequest, http: HttpRequest
) -> tuple[ChatCompletion | EventStream, list[str]]:
    """Answer a conversation, complete or as a stream; and what of the request had no effect.

    Raises:
        ApiError: whatever is wrong with the request, or with the server.
        ClientGone: the client disconnected.
    """
    run = await begin(service, request, http)
    made = await respond(
        http,
        run.session,
        stream=bool(request.stream),
        body=lambda: _body(run, request),
        events=lambda: _events(run, request),
    )
    return made, run.ignored


async def _body(run: Run, request: ChatRequest) -> ChatCompletion:
    pieces = [Piece() for _ in run.choices]
    async for place, piece in run.pieces():
        pieces[place].add(piece)
    return ChatCompletion(
        model=request.model,
        choices=[
            _reply(request, place, piece, run.token_text) for place, piece in enumerate(pieces)
        ],
        usage=usage_of(run.session),
    )


def _reply(request: ChatRequest, place: int, piece: Piece, text: TokenText) -> ChatChoice:
    calls = [
        ToolCallReply(
            id=new_id("call"), function=FunctionReply(name=call.name, arguments=call.arguments)
        )
        for call in piece.calls
    ]
    return ChatChoice(
        index=place,
        message=AssistantReply(
            content=piece.content or (None if calls else ""),
            reasoning_content=piece.reasoning or None,
            tool_calls=calls or None,
        ),
        logprobs=logprobs_of(piece.tokens, text) if request.logprobs else None,
        finish_reason=piece.finish or "stop",
    )


async def _events(run: Run, request: ChatRequest) -> AsyncGenerator[str, None]:
    """The events of a reply: each choice's role, its pieces, its end; then the usage if asked for."""
    id_, created = new_id("chatcmpl"), now()
    text, calls_of = run.token_text, [0] * len(run.choices)

    def chunk(*made: ChunkChoice, **more: Any) -> str:
        if request.include_usage:
            more = {"usage": None, **more}
        return event(
            ChatChunk(
                id=id_,
                object="chat.completion.chunk",
                created=created,
                model=request.model,
                choices=list(made),
                **more,
            )
        )

    for place in range(len(run.choices)):
        delta = Delta(role="assistant", content="")
        yield chunk(ChunkChoice(index=place, delta=delta, finish_reason=None))
    async for place, piece in run.pieces():
        for delta in _deltas(piece, calls_of[place]):
            logprobs = {"logprobs": logprobs_of(piece.tokens, text)} if piece.tokens else {}
            piece.tokens = []
            yield chunk(ChunkChoice(index=place, delta=delta, finish_reason=None, **logprobs))
        calls_of[place] += len(piece.calls)
        if piece.finish:
            logprobs = {"logprobs": logprobs_of(piece.tokens, text)} if piece.tokens else {}
            end = ChunkChoice(index=place, delta=Delta(), finish_reason=piece.finish, **logprobs)
            yield chunk(end)
    if request.include_usage:
        yield chunk(usage=usage_of(run.session))


def _deltas(piece: Piece, calls_before: int) -> list[Delta]:
    """The steps of a piece in the order in which the model wrote them."""
    deltas = []
    if piece.reasoning:
        deltas.append(Delta(reasoning_content=piece.reasoning))
    if piece.content:
        deltas.append(Delta(content=piece.content))
    for number, call in enumerate(piece.calls, calls_before):
        named = FunctionDelta(name=call.name, arguments="")
        opening = ToolCallDelta(index=number, id=new_id("call"), type="function", function=named)
        rest = ToolCallDelta(index=number, function=FunctionDelta(arguments=call.arguments))
        deltas += [Delta(tool_calls=[opening]), Delta(tool_calls=[rest])]
    return deltas


def logprobs_of(tokens: Sequence[ChosenToken], text: TokenText) -> ChatLogprobs:
    """Tokens with their log-probabilities in the API's form."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        return {"token": text.text(token), "logprob": logprob, "bytes": list(text.bytes(token))}

    content = [
        TokenLogprob(
            **entry(chosen.token, chosen.logprob),
            top_logprobs=[TopLogprob(**entry(*likely)) for likely in chosen.top],
        )
        for chosen in tokens
    ]
    return ChatLogprobs(content=content)
