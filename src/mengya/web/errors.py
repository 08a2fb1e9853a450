"""Errors as OpenAI's clients expect them: {"error": {"message", "type", "param", "code"}} and a status.

Takes exceptions; gives JSON responses, one form for every server here. An exception that was not meant
for the client shows none of its traceback, file names or values there.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException


class ErrorBody(BaseModel):
    """What went wrong, for people (`message`) and for programs (`type`, `code`, `param`)."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """The body of every answer whose status is 400 or above."""

    error: ErrorBody


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a FastAPI route that may answer with these statuses."""
    return {status: {"model": ErrorResponse} for status in statuses}


_WITHOUT_V1 = ("/chat/completions", "/completions", "/embeddings", "/models")
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
        """The JSON of the answer; also the data of the last event of a stream that fails."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        error = ErrorBody(message=self.message, type=kind, param=self.param, code=self.code)
        return ErrorResponse(error=error).model_dump()

    def response(self) -> JSONResponse:
        """The answer, with the headers that belong to its status."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def unexpected() -> ApiError:
    """Body of a 500 response."""
    return ApiError(500, "the server failed on this request; its log says where", code="internal")


def install_handlers(app: FastAPI) -> None:
    """Give every error of the framework OpenAI's shape as well."""
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)


async def _on_api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return error.response()


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return explain(error.errors()).response()


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    """404 and 405 of the router, 400 of a body that is no JSON, 413 of one that is too large."""
    assert isinstance(error, HTTPException)
    messages = {
        404: f"no such address: {request.method} {request.url.path}",
        405: f"{request.url.path} does not take {request.method}",
        400: "the body cannot be read as JSON in UTF-8",
    }
    message = messages.get(error.status_code, str(error.detail))
    if error.status_code in (404, 405) and request.url.path in _WITHOUT_V1:
        message += f"; the API is at /v1{request.url.path}: let the client's base_url end in /v1"
    response = ApiError(error.status_code, message).response()
    response.headers.update(error.headers or {})
    if error.status_code == 413:
        response.headers["Connection"] = "close"  # the rest of the body is not wanted
    return response


def explain(problems: Iterable[Any]) -> ApiError:
    """The first of pydantic's findings as one sentence: which field, which rule. Never the value."""
    first = next(iter(problems))
    place = [part for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return ApiError(400, "the body is not valid JSON", code="invalid_json")
    # Names of union members are pydantic's own and mean nothing to a client.
    path = ".".join(str(p) for p in place if isinstance(p, int) or p.isidentifier())
    if first["type"] == "extra_forbidden":
        message = f"unrecognized or unsupported argument: {path}"
        return ApiError(400, message, param=path, code="unknown_parameter")
    if first["type"] == "missing":
        if not path:
            message = "the request needs a JSON body with Content-Type: application/json"
            return ApiError(400, message)
        message = f"missing required argument: {path}"
        return ApiError(400, message, param=path, code="missing_required_parameter")
    if not place and first["type"] in ("model_attributes_type", "model_type"):
        message = "the body must be a JSON object, sent with Content-Type: application/json"
        return ApiError(400, message)
    message = first["msg"].removeprefix("Value error, ")
    return ApiError(
        400, f"{path}: {message}" if path else message, param=path or None, code="invalid_value"
    )


def where(error: BaseException) -> str:
    """Kind and place of an error for the log, without its message: that may hold a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-6:]]
    return f"{type(error).__name__} at {' > '.join(places)}"
