"""Pages as static files: a page's own folder at /, and at /kit what every page here shares.

Pages ask for `kit/...` relative to themselves, so that they work behind a prefix. Each page's
index.html carries its Content-Security-Policy; the headers here add what a meta element cannot say.
"""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI, Response
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from mengya.web.gate import API

KIT = Path(__file__).parent / "page"
HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Revalidated each time (a 304 of few bytes): after an upgrade no module is an old one.
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI, folder: Path) -> None:
    """Serve the page whose index.html is in `folder`; call it after all routes are added."""
    app.router.routes.append(_Mount("/kit", _Files(directory=KIT), name="kit"))
    app.router.routes.append(_Mount("/", _Files(directory=folder, html=True), name="page"))


class _Files(StaticFiles):
    """Files with the headers above."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        return response


class _Mount(Mount):
    """Leaves the API's addresses to the API, with its own 404 and 405."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and (scope["path"] + "/").startswith(API):
            return Match.NONE, {}
        return super().matches(scope)
