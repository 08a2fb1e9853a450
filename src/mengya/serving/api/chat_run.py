"""A chat request -> its run in the engine: the one way from every kind of client to the model.

Clients of other APIs have their requests translated into a `ChatRequest`; what is wrong with it is said in
their own words (`Terms`). Knows nothing of the forms of replies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request as HttpRequest

from mengya.serving.api.answers import Run
from mengya.serving.api.chat_prompt import (
    ChatPrompt,
    check_schema,
    offered_tools,
    prepare_chat,
    reply_schema,
)
from mengya.serving.api.chat_protocol import ChatRequest
from mengya.serving.api.prompts import prepare
from mengya.serving.runtime.choice import Choice
from mengya.serving.runtime.reply_parser import ReplyParser
from mengya.serving.runtime.served import Served
from mengya.serving.runtime.service import Service
from mengya.serving.runtime.session import Session
from mengya.web.disconnect import unless_gone
from mengya.web.errors import ApiError, explain

Terms = Mapping[str, str]
"""Words of a `ChatRequest` -> what another API calls the same."""


async def begin(
    service: Service, request: ChatRequest, http: HttpRequest, *, objects_only: bool = False
) -> Run:
    """Everything up to the engine.

    Args:
        objects_only: the client cannot take calls whose arguments are no JSON object.

    Raises:
        ApiError: whatever is wrong with the request, or with the server.
        ClientGone: the client disconnected.
    """
    service.named(request.model)
    schema = reply_schema(request)
    if schema is not None:
        await unless_gone(http, check_schema(service, schema))
    prepared = await prepare(lambda: prepare_chat(service, request, schema))
    served = service.served()
    session = Session(service, prepared.requests, len(prepared.requests[0].prompt))
    choices = [_choice(served, request, prepared, objects_only) for _ in prepared.requests]
    return Run(session, choices, served.token_text, prepared.ignored)


def _choice(
    served: Served, request: ChatRequest, prepared: ChatPrompt, objects_only: bool
) -> Choice:
    names = frozenset(tool.function.name for tool in offered_tools(request)) or None
    return Choice(
        served.tokenizer,
        parser=ReplyParser(names, prepared.opened, objects_only),
        stops=request.stops,
        one_call=request.parallel_tool_calls is False,
    )


def read_chat(body: dict[str, Any]) -> ChatRequest:
    """A translated request.

    Raises:
        ApiError: its parts do not fit together.
    """
    body = {name: value for name, value in body.items() if value is not None}
    try:
        return ChatRequest.model_validate(body)
    except ValidationError as error:
        raise explain(error.errors(), body) from error


@contextmanager
def said_in(terms: Terms) -> Iterator[None]:
    """Inside, errors about a translated request name what the client has sent."""
    try:
        yield
    except ApiError as error:
        param = error.param
        if param is not None:
            first, dot, rest = param.partition(".")
            param = terms.get(first, first) + dot + rest
        raise ApiError(
            error.status,
            error.message if error.code == "load_failed" else said([error.message], terms)[0],
            param=param,
            code=error.code,
            retry_after=error.retry_after,
        ) from error


def said(texts: list[str], terms: Terms) -> list[str]:
    """`texts` with the words of `terms` replaced, but for what is quoted: names of models and values."""
    words = sorted(terms, key=len, reverse=True)
    pattern = "|".join(rf"(?<![\w.]){re.escape(word)}(?!\w)" for word in words)
    pattern = rf"'[^']*'|{pattern}"
    return [re.sub(pattern, lambda found: terms.get(found[0], found[0]), text) for text in texts]
