"""The HTTP side as one ASGI app: routes, the gate before them, the page.

Takes a worker that loads a model; gives a FastAPI app. Starts the worker with the app and stops it
with it. Knows nothing of how models are found or made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from mengya import __version__
from mengya.serving.api import chat, completions, embeddings
from mengya.serving.api.chat_protocol import ChatRequest
from mengya.serving.api.protocol import CompletionRequest, EmbeddingRequest
from mengya.serving.api.responses import (
    ChatCompletion,
    Completion,
    EmbeddingList,
    ModelCard,
    ModelList,
    ModelNotes,
)
from mengya.serving.errors import ErrorResponse, install_handlers
from mengya.serving.gate import Gate
from mengya.serving.runtime.service import Service
from mengya.serving.runtime.worker import Worker
from mengya.serving.settings import ServerSettings

PAGE = Path(__file__).parent / "page"


def create_app(
    worker: Worker, settings: ServerSettings, key: str | None = None, page: Path = PAGE
) -> FastAPI:
    """The app; its `state.service` is what the server's owner looks at.

    Args:
        key: what clients must send as a bearer token; None: everybody may come in.
        page: folder of the chat page; shown when it holds an index.html and settings.page is true.
    """
    service = Service(worker, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        try:
            yield
        finally:
            await asyncio.to_thread(worker.stop)

    middleware = [Middleware(Gate, service=service, key=key)]
    if settings.cors_origins:
        # Outermost: pages must be able to read errors, too.
        cors = Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
        middleware.insert(0, cors)
    # /docs and /redoc would fetch scripts from elsewhere; /openapi.json is what programs read.
    app = FastAPI(
        title="mengya",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        middleware=middleware,
    )
    app.state.service = service
    install_handlers(app)
    _add_api(app, service)
    _add_watching(app, service)
    _describe_errors(app)
    if settings.page and (page / "index.html").is_file():
        app.router.routes.append(_Page("/", StaticFiles(directory=page, html=True), name="page"))
    return app


class _Page(Mount):
    """The files of the page; the API's addresses stay the API's, with its own 404 and 405."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["path"].startswith("/v1"):
            return Match.NONE, {}
        return super().matches(scope)


def _responses(*statuses: int, stream: bool = False) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorResponse} for status in statuses
    }
    if stream:
        found[200] = {"content": {"text/event-stream": {}}}
    return found


def _add_api(app: FastAPI, service: Service) -> None:
    errors = (400, 401, 404, 413, 429, 500, 503)

    @app.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses=_responses(*errors, stream=True),
    )
    async def chat_completions(request: ChatRequest, http: Request) -> Response:
        """Answer a conversation; OpenAI's chat completions."""
        answer = await chat.answer(service, request, http)
        return JSONResponse(answer.body()) if isinstance(answer, ChatCompletion) else answer

    @app.post(
        "/v1/completions", response_model=Completion, responses=_responses(*errors, stream=True)
    )
    async def text_completions(request: CompletionRequest, http: Request) -> Response:
        """Go on with a text; OpenAI's completions."""
        answer = await completions.answer(service, request, http)
        return JSONResponse(answer.model_dump()) if isinstance(answer, Completion) else answer

    @app.post("/v1/embeddings", response_model=EmbeddingList, responses=_responses(*errors))
    async def embed(request: EmbeddingRequest, http: Request) -> Response:
        """Vectors of texts: the mean of the last hidden state over the tokens, of length 1."""
        return JSONResponse((await embeddings.answer(service, request, http)).model_dump())

    def card(name: str) -> ModelCard:
        named, context = service.named(name), service.served().context
        notes = ModelNotes(kind=named.kind, context=context, adapter=named.adapter is not None)
        return ModelCard(id=name, created=service.started, mengya=notes)

    @app.get("/v1/models", responses=_responses(401, 500, 503))
    async def models() -> ModelList:
        """The names that requests may ask for: the base, then its adapters."""
        return ModelList(data=[card(name) for name in service.served().names])

    @app.get("/v1/models/{name:path}", responses=_responses(401, 404, 500, 503))
    async def model(name: str) -> ModelCard:
        """One of them."""
        return card(name)


def _add_watching(app: FastAPI, service: Service) -> None:
    @app.get("/health", responses=_responses(503))
    async def health() -> dict[str, str]:
        """200 when requests are served; 503 while loading, while shutting down and after failures."""
        service.served()
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response, responses=_responses(401))
    async def metrics() -> Response:
        """Counts and times for Prometheus."""
        text = service.metrics.text(service.worker.stats)
        return Response(text, media_type=CONTENT_TYPE_LATEST)


def _describe_errors(app: FastAPI) -> None:
    """Take FastAPI's 422 out of /openapi.json: what it stands for is answered with 400."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        document = original()
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
