"""POST /v1/responses: OpenAI's Responses API, answered by our chat; nothing is stored."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from mengya.serving.api.answers import respond
from mengya.serving.api.chat_run import begin, said, said_in
from mengya.serving.api.ignored import name_ignored
from mengya.serving.api.openai_responses.protocol import ResponsesRequest
from mengya.serving.api.openai_responses.reply import ResponseBody, Writer
from mengya.serving.api.openai_responses.translate import TERMS, chat_request
from mengya.serving.runtime.served_models import ServedModels
from mengya.web.errors import error_responses


def add_routes(app: FastAPI, models: ServedModels) -> None:
    """Add the address of this API."""
    errors = error_responses(400, 401, 404, 413, 429, 500, 503)
    streamed: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}

    @app.post("/v1/responses", response_model=ResponseBody, responses={**errors, **streamed})
    async def responses(request: ResponsesRequest, http: Request) -> Response:
        """Answer a conversation; OpenAI's responses."""
        with said_in(TERMS):
            async with models.use(request.model, http) as service:
                run = await begin(service, chat_request(request), http)
                writer = Writer(run, request)
                made = await respond(
                    http,
                    run.session,
                    stream=bool(request.stream),
                    body=writer.body,
                    events=writer.events,
                    form=writer.form,
                )
        response = made if isinstance(made, Response) else JSONResponse(made.model_dump())
        name_ignored(response, [*request.ignored, *said(run.ignored, TERMS)])
        return response
