"""Pages as static files: a page's own folder at /, and at /kit what every page here shares.

Pages ask for `kit/...` relative to themselves, so that they work behind a prefix. Each page's
index.html carries its Content-Security-Policy, which is also sent as a header with what a meta
element cannot say.
"""

from __future__ import annotations

import mimetypes
import os
import re
from pathlib import Path

from fastapi import FastAPI, Response
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from mengya.web.gate import is_of_api

FRAMES = "frame-ancestors 'none'"
KIT = Path(__file__).parent / "page"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Revalidated each time (a 304 of few bytes): after an upgrade no module is an old one.
    "Cache-Control": "no-cache",
}

mimetypes.add_type("font/woff2", ".woff2")  # Python knows it from 3.14 on


def add_page(app: FastAPI, folder: Path) -> None:
    """Serve the page whose index.html is in `folder`; call it after all routes are added."""
    policy = page_policy((folder / "index.html").read_text(encoding="utf-8"))
    app.router.routes.append(_Mount("/kit", _Files(policy, directory=KIT), name="kit"))
    app.router.routes.append(_Mount("/", _Files(policy, directory=folder, html=True), name="page"))


def page_policy(html: str) -> str:
    """The Content-Security-Policy of a page's meta element, and that no other page may frame it."""
    found = re.search(r'http-equiv="Content-Security-Policy"\s+content="([^"]*)"', html)
    own = " ".join(found[1].split()).rstrip(";") if found else ""
    return f"{own}; {FRAMES}" if own else FRAMES


class _Files(StaticFiles):
    """Files with the headers above, and the page's policy."""

    def __init__(self, policy: str, *, directory: Path, html: bool = False) -> None:
        super().__init__(directory=directory, html=html)
        self._headers = {**HEADERS, "Content-Security-Policy": policy}

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(self._headers)
        return response


class _Mount(Mount):
    """Leaves the API's addresses to the API, with its own 404 and 405."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and is_of_api(scope["path"]):
            return Match.NONE, {}
        return super().matches(scope)
