"""A FastAPI app with what every server here needs: the gate, CORS, errors of one form.

Knows nothing of what is served: models and run folders are the business of who adds the routes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from mengya import __version__
from mengya.web.errors import ErrorForms, install_handlers
from mengya.web.gate import IGNORED, Gate, Traffic
from mengya.web.settings import WebSettings


def make_app(
    settings: WebSettings,
    traffic: Traffic,
    key: str | None,
    *,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
    guarded: tuple[str, ...] = (),
    forms: ErrorForms | None = None,
) -> FastAPI:
    """An app without routes; add them, then the page (`web.pages.add_page`).

    Args:
        traffic: where requests are counted.
        key: what clients must send as a bearer token; None: everybody may come in.
        lifespan: what starts and stops with the app.
        guarded: paths outside of the API that need the key as well.
        forms: of errors, by address, where it is not OpenAI's.
    """
    gate = Middleware(
        Gate, traffic=traffic, key=key, settings=settings, guarded=guarded, forms=forms
    )
    middleware = [gate]
    if settings.cors_origins:
        # Outermost: pages must be able to read errors, too.
        cors = Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After", IGNORED],
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
    install_handlers(app, forms or {})
    _describe_errors(app)
    return app


def _describe_errors(app: FastAPI) -> None:
    """Take FastAPI's 422 out of /openapi.json: such requests are answered with 400."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        document = original()
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
