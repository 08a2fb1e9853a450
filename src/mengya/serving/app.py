"""The HTTP side as one ASGI app: the routes of the API, the page, the engines' threads.

Takes a worker that loads the base, and what loads the other models; gives a FastAPI app. Starts the worker
with the app and stops all engines with it. Knows nothing of how models are found or made.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from mengya.serving.api import chat, completions, embeddings, tokenization
from mengya.serving.api.anthropic import reply as anthropic_reply
from mengya.serving.api.anthropic import routes as anthropic
from mengya.serving.api.chat_protocol import ChatRequest
from mengya.serving.api.ignored import name_ignored
from mengya.serving.api.ollama import reply as ollama_reply
from mengya.serving.api.ollama import routes as ollama
from mengya.serving.api.openai_responses import routes as openai_responses
from mengya.serving.api.protocol import CompletionRequest, EmbeddingRequest
from mengya.serving.api.responses import (
    ChatCompletion,
    Completion,
    EmbeddingList,
    ModelCard,
    ModelList,
    ModelNotes,
)
from mengya.serving.runtime.model_source import ModelSource
from mengya.serving.runtime.served_models import ModelEntry, ServedModels
from mengya.serving.runtime.worker import Worker
from mengya.serving.settings import ServerSettings
from mengya.web.app import make_app
from mengya.web.errors import error_responses
from mengya.web.pages import add_page

PAGE = Path(__file__).parent / "page"
ERROR_FORMS = {
    "/v1/messages": anthropic_reply.error_body,
    "/api": ollama_reply.error_body,
}


def create_app(
    worker: Worker,
    settings: ServerSettings,
    key: str | None = None,
    page: Path = PAGE,
    sources: Mapping[str, ModelSource] | None = None,
) -> FastAPI:
    """The app; its `state.models` is what the server's owner looks at.

    Args:
        worker: of the base.
        key: what clients must send, as a bearer token or x-api-key; None: everybody may come in.
        page: folder of the chat page; shown when it holds an index.html and settings.page is true.
        sources: the models that are loaded on demand, by their names in requests.
    """
    models = ServedModels(worker, settings, sources or {})

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        try:
            yield
        finally:
            await models.stop()

    app = make_app(
        settings, models.traffic, key, lifespan=lifespan, guarded=("/metrics",), forms=ERROR_FORMS
    )
    app.state.models = models
    _add_api(app, models)
    for dialect in (openai_responses, anthropic, ollama, tokenization):
        dialect.add_routes(app, models)
    _add_monitoring(app, models)
    if settings.page and (page / "index.html").is_file():
        add_page(app, page)
    return app


def _add_api(app: FastAPI, models: ServedModels) -> None:
    errors = error_responses(400, 401, 404, 413, 429, 500, 503)
    streamed: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}

    @app.post(
        "/v1/chat/completions", response_model=ChatCompletion, responses={**errors, **streamed}
    )
    async def chat_completions(request: ChatRequest, http: Request) -> Response:
        """Answer a conversation; OpenAI's chat completions."""
        async with models.use(request.model, http) as service:
            answer, ignored = await chat.answer(service, request, http)
        response = JSONResponse(answer.body()) if isinstance(answer, ChatCompletion) else answer
        name_ignored(response, ignored)
        return response

    @app.post("/v1/completions", response_model=Completion, responses={**errors, **streamed})
    async def text_completions(request: CompletionRequest, http: Request) -> Response:
        """Continue a text; OpenAI's completions."""
        async with models.use(request.model, http) as service:
            answer = await completions.answer(service, request, http)
        return JSONResponse(answer.model_dump()) if isinstance(answer, Completion) else answer

    @app.post("/v1/embeddings", response_model=EmbeddingList, responses=errors)
    async def embed(request: EmbeddingRequest, http: Request) -> Response:
        """Vectors of texts: the mean of the last hidden state over the tokens, of length 1."""
        async with models.use(request.model, http) as service:
            answer = await embeddings.answer(service, request, http)
        return JSONResponse(answer.model_dump())

    def card(entry: ModelEntry) -> ModelCard:
        notes = ModelNotes(
            kind=entry.kind,
            context=entry.context,
            adapter=entry.adapter,
            loaded=entry.loaded,
            memory_bytes=entry.memory_bytes,
            starters=models.base.settings.starters,
        )
        return ModelCard(id=entry.name, created=models.base.started, mengya=notes)

    @app.get("/v1/models", responses=error_responses(401, 500, 503))
    async def list_models() -> ModelList:
        """The names that requests may ask for: the base, its adapters, then the other models."""
        return ModelList(data=[card(entry) for entry in models.entries()])

    @app.get("/v1/models/{name:path}", responses=error_responses(401, 404, 500, 503))
    async def model(name: str) -> ModelCard:
        """One of them."""
        return card(models.entry(name))


def _add_monitoring(app: FastAPI, models: ServedModels) -> None:
    @app.head("/health", include_in_schema=False)
    @app.get("/health", responses=error_responses(503))
    async def health() -> dict[str, str]:
        """200 when the base is served; 503 while loading, while shutting down and after failures."""
        models.base.served()
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response, responses=error_responses(401))
    async def metrics() -> Response:
        """Counts and times for Prometheus, by model where they are of one."""
        return Response(models.metrics_text(), media_type=CONTENT_TYPE_LATEST)
