"""POST /v1/chat/completions: runs a prepared request and writes its reply in OpenAI's form."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request as HttpRequest

from mengya.serving.api.answers import respond, usage_of
from mengya.serving.api.chat_prompt import (
    ChatPrompt,
    check_schema,
    offered_tools,
    prepare_chat,
    reply_schema,
)
from mengya.serving.api.chat_protocol import ChatRequest
from mengya.serving.api.prompts import prepare
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
from mengya.serving.runtime.choice import Choice, Piece
from mengya.serving.runtime.reply_parser import ReplyParser
from mengya.serving.runtime.served import Served
from mengya.serving.runtime.service import Service
from mengya.serving.runtime.session import Session
from mengya.tokenizer.token_text import TokenText
from mengya.web.disconnect import unless_gone
from mengya.web.events import EventStream, event


async def answer(
    service: Service, request: ChatRequest, http: HttpRequest
) -> tuple[ChatCompletion | EventStream, list[str]]:
    """Answer a conversation, complete or as a stream; and what of the request had no effect.

    Raises:
        ApiError: whatever is wrong with the request, or with the server.
        ClientGone: the client disconnected.
    """
    service.named(request.model)
    schema = reply_schema(request)
    if schema is not None:
        await unless_gone(http, check_schema(service, schema))
    prepared = await prepare(lambda: prepare_chat(service, request, schema))
    session = Session(service, prepared.requests, len(prepared.requests[0].prompt))
    served = service.served()
    choices = [_choice(served, request, prepared) for _ in prepared.requests]
    made = await respond(
        http,
        session,
        stream=bool(request.stream),
        body=lambda: _body(session, request, choices, served.token_text),
        events=lambda: _events(session, request, choices, served.token_text),
    )
    return made, prepared.ignored


def _choice(served: Served, request: ChatRequest, prepared: ChatPrompt) -> Choice:
    names = frozenset(tool.function.name for tool in offered_tools(request)) or None
    return Choice(
        served.tokenizer,
        parser=ReplyParser(names, prepared.opened),
        stops=request.stops,
        one_call=request.parallel_tool_calls is False,
    )


async def _body(
    session: Session, request: ChatRequest, choices: list[Choice], text: TokenText
) -> ChatCompletion:
    pieces = [Piece() for _ in choices]
    async for place, piece in session.follow(choices):
        pieces[place].add(piece)
    return ChatCompletion(
        model=request.model,
        choices=[_reply(request, place, piece, text) for place, piece in enumerate(pieces)],
        usage=usage_of(session),
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
        logprobs=_logprobs(piece, text) if request.logprobs else None,
        finish_reason=piece.finish or "stop",
    )


async def _events(
    session: Session, request: ChatRequest, choices: list[Choice], text: TokenText
) -> AsyncGenerator[str, None]:
    """The events of a reply: each choice's role, its pieces, its end; then the usage if asked for."""
    id_, created = new_id("chatcmpl"), now()
    calls_of = [0] * len(choices)

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

    for place in range(len(choices)):
        delta = Delta(role="assistant", content="")
        yield chunk(ChunkChoice(index=place, delta=delta, finish_reason=None))
    async for place, piece in session.follow(choices):
        for delta in _deltas(piece, calls_of[place]):
            logprobs = {"logprobs": _logprobs(piece, text)} if piece.tokens else {}
            piece.tokens = []
            yield chunk(ChunkChoice(index=place, delta=delta, finish_reason=None, **logprobs))
        calls_of[place] += len(piece.calls)
        if piece.finish:
            logprobs = {"logprobs": _logprobs(piece, text)} if piece.tokens else {}
            end = ChunkChoice(index=place, delta=Delta(), finish_reason=piece.finish, **logprobs)
            yield chunk(end)
    if request.include_usage:
        yield chunk(usage=usage_of(session))


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


def _logprobs(piece: Piece, text: TokenText) -> ChatLogprobs:
    def entry(token: int, logprob: float) -> dict[str, Any]:
        return {"token": text.text(token), "logprob": logprob, "bytes": list(text.bytes(token))}

    content = [
        TokenLogprob(
            **entry(chosen.token, chosen.logprob),
            top_logprobs=[TopLogprob(**entry(*likely)) for likely in chosen.top],
        )
        for chosen in piece.tokens
    ]
    return ChatLogprobs(content=content)
