"""Errors as clients expect them: a status and a JSON body, in OpenAI's form where no other is asked for.

Takes exceptions; gives JSON responses. Clients of another API find its own form at its addresses
(`ErrorForms`). An exception that was not meant for the client shows none of its traceback, file names or
values there.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route


class ErrorBody(BaseModel):
    """What went wrong, for people (`message`) and for programs (`type`, `code`, `param`)."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """The body of every answer whose status is 400 or above."""

    error: ErrorBody


def error_responses(
    *statuses: int, model: type[BaseModel] = ErrorResponse
) -> dict[int | str, dict[str, Any]]:
    """`responses` of a FastAPI route that may answer with these statuses."""
    return {status: {"model": model} for status in statuses}


_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}


class ApiError(Exception):
    """An answer other than success, with the words and codes that the client gets.

    Attributes:
        status: HTTP status, 400 or above.
        param: the request's field at fault, None when it is no field.
        retry_after: seconds until another try may succeed; sent as Retry-After.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The JSON of the answer in OpenAI's form; also the last event of a stream that fails."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        error = ErrorBody(message=self.message, type=kind, param=self.param, code=self.code)
        return ErrorResponse(error=error).model_dump()

    def response(self, form: ErrorForm | None = None) -> JSONResponse:
        """The answer, with the headers that belong to its status."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse((form or ApiError.body)(self), self.status, headers)


ErrorForm = Callable[[ApiError], dict[str, Any]]
ErrorForms = Mapping[str, ErrorForm]
"""Where an address begins -> the body of its errors; "/v1/messages" also means all below it."""


def form_of(path: str, forms: ErrorForms) -> ErrorForm:
    """The form of errors at an address."""
    found = (form for start, form in forms.items() if f"{path}/".startswith(f"{start}/"))
    return next(found, ApiError.body)


def unexpected() -> ApiError:
    """Body of a 500 response."""
    return ApiError(500, "the server failed on this request; its log says where", code="internal")


def install_handlers(app: FastAPI, forms: ErrorForms) -> None:
    """Give every error of the framework the form of its address as well."""

    async def on_api_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return error.response(form_of(request.url.path, forms))

    async def on_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = explain(error.errors(), error.body)
        return found.response(form_of(request.url.path, forms))

    async def on_http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return _http_error(request, error, form_of(request.url.path, forms))

    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http_error)


def _http_error(request: Request, error: HTTPException, form: ErrorForm) -> JSONResponse:
    """404 and 405 of the router, 400 of a body that is no JSON, 413 of one that is too large."""
    messages = {
        404: f"no such address: {request.method} {request.url.path}",
        405: f"{request.url.path} does not take {request.method}",
        400: "the body cannot be read as JSON in UTF-8",
    }
    message = messages.get(error.status_code, str(error.detail))
    if error.status_code in (404, 405):
        message += _right_address(request)
    response = ApiError(error.status_code, message).response(form)
    response.headers.update(error.headers or {})
    if error.status_code == 413:
        response.headers["Connection"] = "close"  # the rest of the body is not wanted
    return response


def _right_address(request: Request) -> str:
    """What is wrong with the client's base_url, when that would explain the address; else nothing."""
    path = request.url.path

    def is_known(candidate: str) -> bool:
        scope = {**request.scope, "path": candidate}
        routes = (route for route in request.app.routes if isinstance(route, Route))
        return any(route.matches(scope)[0] is not Match.NONE for route in routes)

    if is_known(path):
        return ""
    if is_known(f"/v1{path}"):
        return f"; the API is at /v1{path}: add /v1 to base_url"
    for at in [i for i, character in enumerate(path) if character == "/" and i > 0][:8]:
        before, rest = path[:at], path[at:]
        if is_known(rest):
            return f"; the API is at {rest}: take {before[:100]} out of base_url"
        if is_known(f"/v1{rest}"):
            return f"; the API is at /v1{rest}: let base_url end in /v1"
    return ""


def explain(problems: Sequence[Any], body: Any) -> ApiError:
    """Pydantic's findings about `body` as one sentence: which field, which rule. Never the value."""
    first = problems[0]
    if first["type"] == "json_invalid":
        return ApiError(400, "the body is not valid JSON", code="invalid_json")
    fields, found = _deepest(problems, body)
    path = ".".join(map(str, fields))[:200]
    kind = found[0]["type"]
    if kind == "extra_forbidden":
        message = f"unrecognized or unsupported argument: {path}"
        return ApiError(400, message, param=path, code="unknown_parameter")
    if kind == "missing":
        if not path:
            message = "the request needs a JSON body with Content-Type: application/json"
            return ApiError(400, message)
        message = f"missing required argument: {path}"
        return ApiError(400, message, param=path, code="missing_required_parameter")
    if not path and kind in ("model_attributes_type", "model_type"):
        message = "the body must be a JSON object, sent with Content-Type: application/json"
        return ApiError(400, message)
    message = _rules([one["msg"].removeprefix("Value error, ") for one in found])
    param = path or None
    if not path and isinstance(body, dict) and (word := re.match(r"\w+", message)):
        # What two fields must have in common is said of the one that the sentence begins with.
        param = word[0] if word[0] in body else None
    shown = f"{path}: {message}" if path else message
    return ApiError(400, shown, param=param, code="invalid_value")


def _deepest(problems: Sequence[Any], body: Any) -> tuple[tuple[str | int, ...], list[Any]]:
    """The place at fault and all findings about it.

    Where a value may have one of several types, each that it has not brings a finding; the type that it
    was meant to have is the one whose finding lies deepest.
    """
    paths = [_fields(problem, body) for problem in problems]
    below = [path for path in paths if path[: len(paths[0])] == paths[0]]
    chosen = max(below, key=len)
    return chosen, [one for one, path in zip(problems, paths, strict=True) if path == chosen]


def _fields(problem: Any, body: Any) -> tuple[str | int, ...]:
    """The fields on the way to a finding, without the names of types that pydantic puts between them."""
    found: list[str | int] = []
    value = body
    place = problem["loc"][1:] if problem["loc"][:1] == ("body",) else problem["loc"]
    for at, part in enumerate(place):
        is_key = isinstance(value, dict) and part in value
        if is_key or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            value = value[part]
            found.append(part)
        elif at == len(place) - 1 and problem["type"] == "missing":
            found.append(part)
    return tuple(found)


def _rules(messages: list[str]) -> str:
    """Alternatives as one sentence."""
    start = "Input should be "
    different = list(dict.fromkeys(messages))
    if len(different) > 1 and all(message.startswith(start) for message in different):
        return start + " or ".join(message.removeprefix(start) for message in different)
    return different[0]


def where(error: BaseException) -> str:
    """Kind and place of an error for the log, without its message: that may hold a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-6:]]
    return f"{type(error).__name__} at {' > '.join(places)}"
