"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's Messages API, answered by our chat."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from mengya.serving.api.answers import respond
from mengya.serving.api.anthropic import reply
from mengya.serving.api.anthropic.protocol import MessagesRequest, TokenCountRequest
from mengya.serving.api.anthropic.translate import TERMS, chat_request
from mengya.serving.api.chat_prompt import render_chat, reply_schema
from mengya.serving.api.chat_run import begin, said, said_in
from mengya.serving.api.ignored import name_ignored
from mengya.serving.api.prompts import prepare
from mengya.serving.runtime.served_models import ServedModels
from mengya.web.errors import ApiError, error_responses

# What the later one no longer has (temperature, top_p, top_k), it would refuse; here it is taken in both.
VERSIONS = ("2023-06-01", "2026-10-21")


def add_routes(app: FastAPI, models: ServedModels) -> None:
    """Add the addresses of this API."""
    errors = error_responses(400, 401, 404, 413, 429, 500, 503, model=reply.AnthropicError)
    streamed: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}

    @app.post(
        "/v1/messages", response_model=reply.AnthropicMessage, responses={**errors, **streamed}
    )
    async def messages(request: MessagesRequest, http: Request) -> Response:
        """Answer a conversation; Anthropic's messages."""
        ignored = _headers(http)
        with said_in(TERMS):
            async with models.use(request.model, http) as service:
                run = await begin(service, chat_request(request), http, objects_only=True)
                made = await respond(
                    http,
                    run.session,
                    stream=bool(request.stream),
                    body=lambda: reply.body(run, request.model),
                    events=lambda: reply.events(run, request.model),
                    form=reply.FORM,
                )
        response = made if isinstance(made, Response) else JSONResponse(made.model_dump())
        name_ignored(response, [*request.ignored, *said(run.ignored, TERMS), *ignored])
        return response

    @app.post("/v1/messages/count_tokens", response_model=reply.TokenCount, responses=errors)
    async def count_tokens(request: TokenCountRequest, http: Request) -> Response:
        """How many tokens a prompt has."""
        ignored = _headers(http)
        with said_in(TERMS):
            async with models.use(request.model, http) as service:
                chat = chat_request(request)
                tokenizer = service.served().tokenizer
                rendered = await prepare(lambda: render_chat(tokenizer, chat, reply_schema(chat)))
        response = JSONResponse(reply.TokenCount(input_tokens=len(rendered.ids)).model_dump())
        name_ignored(response, [*request.ignored, *ignored])
        return response


def _headers(http: Request) -> list[str]:
    """Headers without effect.

    Raises:
        ApiError: a version with other forms than those here.
    """
    version = http.headers.get("anthropic-version", VERSIONS[0])
    if version not in VERSIONS:
        message = (
            f"anthropic-version {version[:40]!r} is not known here; send {' or '.join(VERSIONS)}"
        )
        raise ApiError(400, message, param="anthropic-version", code="invalid_value")
    return ["header anthropic-beta"] if "anthropic-beta" in http.headers else []
