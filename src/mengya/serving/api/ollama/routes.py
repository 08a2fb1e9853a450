"""/api/chat, /api/generate, /api/tags, /api/show and /api/version: ollama's API, answered by our own."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from mengya.serving.api.answers import Run, respond
from mengya.serving.api.chat_run import begin, said, said_in
from mengya.serving.api.completions import prepare_completions
from mengya.serving.api.ignored import NotingRequest, name_ignored
from mengya.serving.api.ollama import reply
from mengya.serving.api.ollama.models import Shown, Tags, Version, own_name, shown, tag
from mengya.serving.api.ollama.protocol import GenerateRequest, OllamaChatRequest, ShowRequest
from mengya.serving.api.ollama.translate import (
    TERMS,
    chat_request,
    completion_request,
    prompt_request,
)
from mengya.serving.api.prompts import prepare
from mengya.serving.runtime.choice import Choice
from mengya.serving.runtime.served_models import ServedModels
from mengya.serving.runtime.service import Service
from mengya.serving.runtime.session import Session
from mengya.web.errors import ApiError, error_responses

_STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"application/x-ndjson": {}}}}


def add_routes(app: FastAPI, models: ServedModels) -> None:
    """Add the addresses of this API."""
    errors = error_responses(400, 401, 404, 413, 429, 500, 503, model=reply.OllamaError)

    @app.post("/api/chat", response_model=reply.ChatPart, responses={**errors, **_STREAMED})
    async def chat(request: OllamaChatRequest, http: Request) -> Response:
        """Answer a conversation; ollama's chat."""
        with said_in(TERMS):
            name = own_name(models, request.model)
            async with models.use(name, http) as service:
                if not request.messages:
                    return _loaded(request, request.model, chat=True)
                run = await begin(service, chat_request(request, name), http, objects_only=True)
                return await _answered(http, run, request, chat=True)

    @app.post("/api/generate", response_model=reply.TextPart, responses={**errors, **_STREAMED})
    async def generate(request: GenerateRequest, http: Request) -> Response:
        """Answer or continue a prompt; ollama's generate."""
        with said_in(TERMS):
            name = own_name(models, request.model)
            async with models.use(name, http) as service:
                if not request.prompt:
                    return _loaded(request, request.model, chat=False)
                if request.raw or service.named(name).kind == "base":
                    run = await _continuation(service, request, name)
                else:
                    run = await begin(service, prompt_request(request, name), http)
                return await _answered(http, run, request, chat=False)

    _add_lists(app, models)


def _add_lists(app: FastAPI, models: ServedModels) -> None:
    model = reply.OllamaError

    @app.get("/api/tags", responses=error_responses(401, 500, 503, model=model))
    async def tags() -> Tags:
        """The names that requests may ask for; ollama's list of models."""
        return Tags(models=[tag(entry, models.base.started) for entry in models.entries()])

    @app.post("/api/show", responses=error_responses(400, 401, 404, 413, 500, 503, model=model))
    async def show(request: ShowRequest) -> Shown:
        """What is known of a model; ollama's show."""
        name = request.model or request.name
        if not name:
            message = "missing required argument: model"
            raise ApiError(400, message, param="model", code="missing_required_parameter")
        with said_in(TERMS):
            entry = models.entry(own_name(models, name))
        return shown(entry, models.base.settings.sampling, models.base.started)

    @app.head("/api/version", include_in_schema=False)
    @app.get("/api/version", responses=error_responses(401, model=model))
    async def version() -> Version:
        """The version of ollama's API that is followed, and that of this server."""
        return Version()


async def _continuation(service: Service, request: GenerateRequest, name: str) -> Run:
    wanted = completion_request(request, name)
    prompts, requests = await prepare(lambda: prepare_completions(service, wanted))
    served = service.served()
    session = Session(service, requests, len(prompts[0].ids))
    return Run(session, [Choice(served.tokenizer, stops=wanted.stops)], served.token_text, [])


async def _answered(
    http: Request, run: Run, request: OllamaChatRequest | GenerateRequest, *, chat: bool
) -> Response:
    writer = reply.Writer(run, request.model, chat=chat)
    made = await respond(
        http,
        run.session,
        stream=request.stream is not False,
        body=writer.body,
        events=writer.lines,
        form=reply.FORM,
    )
    if not isinstance(made, Response):
        made = JSONResponse(made.model_dump(exclude_none=True))
    name_ignored(made, [*request.ignored, *said(run.ignored, TERMS)])
    return made


def _loaded(request: NotingRequest, model: str, *, chat: bool) -> Response:
    response = JSONResponse(reply.loaded(model, chat=chat).model_dump(exclude_none=True))
    name_ignored(response, request.ignored)
    return response
