"""POST /v1/completions: texts or ids -> engine requests, and the completions in OpenAI's words."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.requests import Request as HttpRequest

from mengya.generation.batch.engine import Request, TokenEvent
from mengya.serving.api.completion_reply import CompletionReply, joined
from mengya.serving.api.events import EventStream, event
from mengya.serving.api.inputs import Prompt, read_inputs
from mengya.serving.api.protocol import CompletionRequest
from mengya.serving.api.responses import Completion, CompletionChoice, new_id, now
from mengya.serving.errors import ApiError
from mengya.serving.runtime.choice import Choice
from mengya.serving.runtime.service import Counts, Service, prepare, unless_gone
from mengya.serving.runtime.worker import Ticket

DEFAULT_MAX_TOKENS = 16  # of OpenAI's API
MAX_COMPLETIONS = 2048


async def answer(
    service: Service, request: CompletionRequest, http: HttpRequest
) -> Completion | EventStream:
    """Go on with every prompt, whole or as a stream.

    Raises:
        ApiError: whatever is wrong with the request, or with the server.
        ClientGone: nobody waits any more.
    """
    prompts, requests = await prepare(lambda: _prepared(service, request))
    counts = Counts(sum(len(prompt.ids) for prompt in prompts))
    tokenizer = service.served().tokenizer
    replies = [
        CompletionReply(
            request,
            Choice(tokenizer, stops=request.stops),
            prompts[place // (request.n or 1)],
            place,
            service.token_text(),
        )
        for place in range(len(requests))
    ]
    if not request.stream:
        return await unless_gone(http, _whole(service, request, requests, replies, counts))
    ticket = await service.submit(requests)

    return EventStream(_stream(service, request, ticket, replies, counts), service, ticket, counts)


def _prepared(service: Service, request: CompletionRequest) -> tuple[list[Prompt], list[Request]]:
    name = service.named(request.model)
    prompts = read_inputs(service, request.prompt)
    n = request.n or 1
    if len(prompts) * n > MAX_COMPLETIONS:
        raise ApiError(400, f"at most {MAX_COMPLETIONS} completions at once", param="n")
    asked = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    defaults = service.settings.sampling.params()
    requests = []
    for prompt in prompts:
        budget = service.new_tokens(len(prompt.ids), None if asked == -1 else asked, "max_tokens")
        requests += [
            Request(
                prompt=prompt.ids,
                # One token is computed even for max_tokens=0, which asks for the prompt's own.
                params=request.sampling(defaults, max(budget, 1), choice),
                stop_token_ids=service.stop_ids(),
                top_logprobs=request.logprobs,
                adapter=name.adapter,
                echo_logprobs=bool(request.echo) and request.logprobs is not None,
            )
            for choice in range(n)
        ]
    return prompts, requests


async def _whole(
    service: Service,
    request: CompletionRequest,
    requests: list[Request],
    replies: list[CompletionReply],
    counts: Counts,
) -> Completion:
    choices: list[CompletionChoice | None] = [None] * len(replies)
    ticket = await service.submit(requests)
    try:
        events = _wanted(request, ticket)
        async for place, told in service.follow(ticket, counts, replies, events):
            choices[place] = joined(choices[place], told)
    finally:
        ticket.close()
        service.count_prompt(counts)
    given = [choice for choice in choices if choice is not None]
    return Completion(model=request.model, choices=given, usage=counts.usage())


async def _stream(
    service: Service,
    request: CompletionRequest,
    ticket: Ticket,
    replies: list[CompletionReply],
    counts: Counts,
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

    events = _wanted(request, ticket)
    async for _, told in service.follow(ticket, counts, replies, events):
        if told is not None:
            yield chunk([told])
    if request.include_usage:
        yield chunk([], usage=counts.usage())


async def _wanted(
    request: CompletionRequest, ticket: Ticket
) -> AsyncGenerator[tuple[int, TokenEvent], None]:
    """The events of a ticket, without the token that max_tokens=0 made the engine compute."""
    async for place, token_event in ticket:
        if request.max_tokens == 0:
            token_event = token_event._replace(token=None, finish="length")
        yield place, token_event
