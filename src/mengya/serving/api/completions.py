"""POST /v1/completions: texts or ids -> engine requests, and the completions in OpenAI's form."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from starlette.requests import Request as HttpRequest

from mengya.generation.batch.engine import Request, TokenEvent
from mengya.serving.api.answers import respond, usage_of
from mengya.serving.api.completion_reply import CompletionReply, joined
from mengya.serving.api.prompts import (
    Prompt,
    check_ids,
    max_new_tokens,
    prepare,
    read_prompts,
)
from mengya.serving.api.protocol import CompletionRequest
from mengya.serving.api.responses import Completion, CompletionChoice, new_id, now
from mengya.serving.runtime.choice import Choice
from mengya.serving.runtime.service import Service
from mengya.serving.runtime.session import Session
from mengya.web.errors import ApiError
from mengya.web.events import EventStream, event

DEFAULT_MAX_TOKENS = 16  # of OpenAI's API
MAX_COMPLETIONS = 2048


async def answer(
    service: Service, request: CompletionRequest, http: HttpRequest
) -> Completion | EventStream:
    """Continue every prompt, complete or as a stream.

    Raises:
        ApiError: whatever is wrong with the request, or with the server.
        ClientGone: the client disconnected.
    """
    prompts, requests = await prepare(lambda: prepare_completions(service, request))
    session = Session(service, requests, sum(len(prompt.ids) for prompt in prompts))
    served = service.served()
    replies = [
        CompletionReply(
            request,
            Choice(served.tokenizer, stops=request.stops),
            prompts[place // (request.n or 1)],
            place,
            served.token_text,
        )
        for place in range(len(requests))
    ]
    return await respond(
        http,
        session,
        stream=bool(request.stream),
        body=lambda: _body(session, request, replies),
        events=lambda: _events(session, request, replies),
    )


def prepare_completions(
    service: Service, request: CompletionRequest
) -> tuple[list[Prompt], list[Request]]:
    """The prompts, and n requests for each; slow: call it through `prepare`.

    Raises:
        ApiError, UserError: what does not fit this model.
    """
    served, name = service.served(), service.named(request.model)
    prompts = read_prompts(served, request.prompt, "prompt")
    n = request.n or 1
    if len(prompts) * n > MAX_COMPLETIONS:
        raise ApiError(400, f"at most {MAX_COMPLETIONS} completions at once", param="n")
    check_ids(served, map(int, request.logit_bias or ()), "logit_bias")
    asked = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    defaults = service.settings.sampling.params()
    requests = []
    for prompt in prompts:
        budget = max_new_tokens(
            served.context, len(prompt.ids), None if asked == -1 else asked, "max_tokens",
            service.settings.clamp_max_tokens,
        )  # fmt: skip
        requests += [
            Request(
                prompt=prompt.ids,
                # One token is computed even for max_tokens=0, which asks for the prompt's own.
                params=request.sampling(defaults, max(budget, 1), choice),
                stop_token_ids=served.stop_token_ids,
                top_logprobs=request.logprobs,
                adapter=name.adapter,
                echo_logprobs=bool(request.echo) and request.logprobs is not None,
            )
            for choice in range(n)
        ]
    return prompts, requests


async def _body(
    session: Session, request: CompletionRequest, replies: list[CompletionReply]
) -> Completion:
    choices: list[CompletionChoice | None] = [None] * len(replies)
    async for place, piece in session.follow(replies, _adapted(request)):
        choices[place] = joined(choices[place], piece)
    given = [choice for choice in choices if choice is not None]
    return Completion(model=request.model, choices=given, usage=usage_of(session))


async def _events(
    session: Session, request: CompletionRequest, replies: list[CompletionReply]
) -> AsyncGenerator[str, None]:
    id_, created = new_id("cmpl"), now()

    def chunk(choices: list[CompletionChoice], **usage: object) -> str:
        if request.include_usage:
            usage = {"usage": None, **usage}
        values = {"id": id_, "object": "text_completion", "created": created}
        return event(
            Completion.model_validate(
                {**values, "model": request.model, "choices": choices, **usage}
            )
        )

    async for _, piece in session.follow(replies, _adapted(request)):
        if piece is not None:
            yield chunk([piece])
    if request.include_usage:
        yield chunk([], usage=usage_of(session))


def _adapted(request: CompletionRequest) -> Callable[[TokenEvent], TokenEvent]:
    """Drops the token that max_tokens=0 made the engine compute."""
    if request.max_tokens != 0:
        return lambda event: event
    return lambda event: event._replace(token=None, finish="length")
