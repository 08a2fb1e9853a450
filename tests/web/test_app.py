"""What every server here has, shown on an app that knows no models."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.testclient import TestClient

from mengya.errors import UserError
from mengya.web.app import make_app
from mengya.web.errors import ApiError
from mengya.web.events import EventStream, event
from mengya.web.gate import Traffic
from mengya.web.settings import KEY, WebSettings, read_api_key


class Note(BaseModel):
    text: str


class Notes:
    """An app of three routes, and what it reported."""

    def __init__(self, key: str | None = None, **settings: object) -> None:
        self.answers: list[tuple[str, int, bool]] = []
        self.closed: list[bool] = []
        self.traffic = Traffic(
            lambda path, status, seconds: self.answers.append((path, status, seconds is not None))
        )
        self.app = make_app(
            WebSettings.model_validate(settings), self.traffic, key, guarded=("/numbers",),
            forms={"/v1/notes": lambda error: {"said": error.message}},
        )  # fmt: skip
        self._add_routes(self.app)
        self.client = TestClient(self.app, base_url="http://127.0.0.1")

    def _add_routes(self, app: FastAPI) -> None:
        @app.post("/v1/notes")
        async def write(note: Note) -> Note:
            if note.text == "broken":
                raise RuntimeError("秘密")
            return note

        @app.get("/numbers")
        async def numbers() -> int:
            return self.traffic.in_flight

        @app.get("/v1/stream/{how}")
        async def stream(how: str) -> EventStream:
            async def events() -> AsyncGenerator[str, None]:
                yield event(Note(text="一"))
                if how == "refused":
                    raise ApiError(503, "no more", code="lost")
                if how == "broken":
                    raise RuntimeError("秘密")

            return EventStream(events(), self.closed.append)


def test_the_key_guards_the_api_and_what_is_named() -> None:
    notes = Notes(key="k")
    for path in ("/v1/stream/full", "/v1/nothing", "/numbers"):
        refused = notes.client.get(path)
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
        assert refused.json()["error"]["code"] == "invalid_api_key"
    for headers in (
        {"Authorization": "Bearer k"},
        {"authorization": "bEARER k"},
        {"X-Api-Key": "k"},
        {"X-Api-Key": "k", "Authorization": "Bearer other"},
    ):
        assert notes.client.get("/numbers", headers=headers).status_code == 200
    assert notes.client.get("/numbers", headers={"X-Api-Key": "other"}).status_code == 401
    assert notes.client.get("/openapi.json").status_code == 200


def test_answers_are_counted_by_the_route_not_by_what_a_client_made_up() -> None:
    notes = Notes()
    notes.client.get("/v1/stream/full")
    notes.client.get("/v1/made/up")
    notes.client.get("/numbers")
    assert notes.answers == [
        ("/v1/stream/{how}", 200, True),
        ("other", 404, True),
        ("/numbers", 200, False),
    ]
    assert notes.traffic.in_flight == 0


def test_bodies_are_bounded_and_errors_have_the_form_of_their_address() -> None:
    notes = Notes(max_body_mb=0.001)
    large = notes.client.post("/v1/notes", json={"text": "x" * 2000})
    assert large.status_code == 413 and "0.001 MiB" in large.json()["said"]
    missing = notes.client.post("/v1/notes", json={})
    assert missing.status_code == 400 and missing.json()["said"].endswith(": text")
    refused = Notes(key="k").client.post("/v1/notes", json={})
    assert refused.status_code == 401 and set(refused.json()) == {"said"}
    elsewhere = notes.client.post("/v1/notes-of-others", json={})
    assert elsewhere.status_code == 404 and elsewhere.json()["error"]["param"] is None
    assert "422" not in str(notes.client.get("/openapi.json").json()["paths"])


def test_a_fault_shows_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    failed = Notes().client.post("/v1/notes", json={"text": "broken"})
    assert failed.status_code == 500 and "its log says where" in failed.json()["said"]
    assert "秘密" not in failed.text + caplog.text and "RuntimeError at" in caplog.text


@pytest.mark.parametrize(
    ("how", "last"), [("full", "[DONE]"), ("refused", '"lost"'), ("broken", '"internal"')]
)
def test_a_stream_ends_with_done_or_an_error(how: str, last: str) -> None:
    notes = Notes()
    lines = [line for line in notes.client.get(f"/v1/stream/{how}").text.splitlines() if line]
    assert lines[0] == 'data: {"text":"一"}' and last in lines[-1] and len(lines) == 2
    assert "秘密" not in lines[-1] and notes.closed == [True]


def test_other_origins_only_as_configured() -> None:
    origin = {"Origin": "http://page.example"}
    assert (
        "access-control-allow-origin" not in Notes().client.get("/numbers", headers=origin).headers
    )
    open_to_one = Notes(key="k", cors_origins=["http://page.example"])
    refused = open_to_one.client.get("/numbers", headers=origin)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "http://page.example"


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("", None), ("k", "k")):
        monkeypatch.setenv(KEY, value)
        assert read_api_key() == expected
    for wrong in ("密钥", "abc\r", " abc", "a\tb"):
        monkeypatch.setenv(KEY, wrong)
        with pytest.raises(UserError, match="ASCII"):
            read_api_key()


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_which_hosts_are_local(host: str, local: bool) -> None:
    assert WebSettings(host=host).is_local is local
