"""A chat request -> what the engine is to do: the prompt's ids, sampling, grammar.

The one place where messages and tools of the API meet the chat template. Knows nothing of replies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerFast

from mengya.generation.batch.engine import Request
from mengya.serving.api.chat_protocol import (
    AssistantMessage,
    ChatRequest,
    Content,
    JsonSchemaFormat,
    Message,
    NamedToolChoice,
    Tool,
    ToolMessage,
)
from mengya.serving.api.prompts import check_ids, max_new_tokens, prepare
from mengya.serving.runtime.grammar import JsonFilter
from mengya.serving.runtime.json_schema import ReplySchema, call_schema
from mengya.serving.runtime.reply_parser import CALL, END_THINK, THINK
from mengya.serving.runtime.served import Served
from mengya.serving.runtime.service import Service
from mengya.tokenizer.chat_template import chat_template_of, encode_prompt
from mengya.tokenizer.load import plain_backend
from mengya.web.errors import ApiError


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A request ready for the engine.

    Attributes:
        opened: what the prompt has already written of the reply: `<think>`, `<tool_call>`, or
            `</think>` when the answer itself has begun.
        ignored: what was sent and has no effect.
    """

    requests: list[Request]
    opened: str | None
    ignored: list[str]


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """The ids of a conversation up to where its reply begins; `opened` as in `ChatPrompt`."""

    ids: list[int]
    opened: str | None


def render_chat(
    tokenizer: PreTrainedTokenizerFast, request: ChatRequest, schema: ReplySchema | None = None
) -> RenderedChat:
    """The prompt of a request; slow: call it through `prepare`.

    Raises:
        UserError: the messages do not fit the chat template.
    """
    tools = offered_tools(request)
    messages = [template_message(message) for message in request.messages]
    begun = messages.pop() if request.continues else None
    prompt = encode_prompt(
        tokenizer, messages, [tool.written for tool in tools] or None, request.wants_thinking
    )
    ending = str(tokenizer.decode(prompt[-4:]))
    opened = THINK if ending.rstrip().endswith(THINK) else None
    if opened and (schema is not None or begun is not None):
        # All of such a reply is JSON, or the answer has begun: no reasoning comes first.
        opened = None
        closing = f"{END_THINK}\n\n" if ending.endswith("\n") else f"\n\n{END_THINK}\n\n"
        prompt = [*prompt, *_ids(tokenizer, closing)]
    if begun is not None:
        opened = END_THINK
        text = str(begun["content"]).lstrip()
        prompt = [*prompt, *plain_backend(tokenizer).encode(text, add_special_tokens=False).ids]
    if request.tool_choice not in (None, "none", "auto"):
        # The reply is constrained to the JSON inside the tags; the prompt opens them.
        opened = CALL
        prompt = [*prompt, *_ids(tokenizer, f"{CALL}\n")]
    return RenderedChat(prompt, opened)


def prepare_chat(
    service: Service, request: ChatRequest, schema: ReplySchema | None = None
) -> ChatPrompt:
    """Render, tokenize and bound a request; slow: call it through `prepare`.

    Args:
        schema: of `reply_schema`; `check_schema` has found it harmless.

    Raises:
        ApiError, UserError: what does not fit this model.
    """
    served, name = service.served(), service.named(request.model)
    ignored = [*request.ignored, *_unknown_variables(served.tokenizer, request)]
    rendered = render_chat(served.tokenizer, request, schema)
    budget = max_new_tokens(
        served.context, len(rendered.ids), request.limit, request.limit_name,
        service.settings.clamp_max_tokens,
    )  # fmt: skip
    check_ids(served, map(int, request.logit_bias or ()), "logit_bias")
    top = (request.top_logprobs or 0) if request.logprobs else None
    defaults = service.settings.sampling.params()
    grammar = _grammar(served, schema) if schema is not None else None
    if grammar is not None and schema is not None:
        ignored += [f"{schema.param}: {note}" for note in grammar.ignored]
    requests = [
        Request(
            prompt=tuple(rendered.ids),
            params=request.sampling(defaults, budget, choice),
            stop_token_ids=served.stop_token_ids,
            top_logprobs=top,
            adapter=name.adapter,
            grammar=grammar.copy() if grammar is not None else None,
        )
        for choice in range(request.n or 1)
    ]
    return ChatPrompt(requests, rendered.opened, ignored)


def _unknown_variables(tokenizer: PreTrainedTokenizerFast, request: ChatRequest) -> list[str]:
    """What chat_template_kwargs sets in vain; ApiError when the template would use it."""
    template = chat_template_of(tokenizer)
    for name in sorted(request.template_variables):
        if re.search(rf"\b{re.escape(name)}\b", template):
            raise ApiError(
                400,
                f"chat_template_kwargs.{name[:100]} would change the prompt and cannot be set here; "
                "leave it out",
                param=f"chat_template_kwargs.{name[:100]}",
                code="unknown_parameter",
            )
    return [f"chat_template_kwargs.{name}" for name in sorted(request.template_variables)]


def _ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids


def offered_tools(request: ChatRequest) -> list[Tool]:
    """The tools that the prompt describes to the model."""
    return [] if request.tool_choice == "none" else request.tools or []


def reply_schema(request: ChatRequest) -> ReplySchema | None:
    """What the reply's JSON has to be, None for a free reply."""
    wanted = request.tool_choice
    if wanted not in (None, "none", "auto"):
        functions = [
            tool.function
            for tool in request.tools or []
            if not isinstance(wanted, NamedToolChoice) or tool.function.name == wanted.function.name
        ]
        shown = [one.model_dump(include={"name", "parameters"}) for one in functions]
        return ReplySchema(call_schema(shown), any(one.strict for one in functions), "tools")
    if not request.json_wanted:
        return None
    asked: dict[str, Any] | None = None
    strict = False
    if isinstance(request.response_format, JsonSchemaFormat):
        form = request.response_format.json_schema
        asked, strict = form.schema_, bool(form.strict)
    return ReplySchema({"type": "object"} if asked is None else asked, strict, "response_format")


async def check_schema(service: Service, schema: ReplySchema) -> None:
    """Whether the schema compiles within the server's limits.

    Raises:
        ApiError: it does not; llguidance is missing.
    """
    served = service.served()
    grammars = await prepare(lambda: served.grammars)
    problem = await service.schemas.problem(grammars, schema)
    if problem is not None:
        raise _refused(schema, problem)


def _refused(schema: ReplySchema, problem: str) -> ApiError:
    message = f"the JSON schema cannot be enforced: {problem}"
    return ApiError(400, message, param=schema.param, code="invalid_json_schema")


def _grammar(served: Served, schema: ReplySchema) -> JsonFilter:
    try:
        return served.grammars.json_schema(schema)
    except ValueError as error:
        raise _refused(schema, str(error)) from error


def template_message(message: Message) -> dict[str, Any]:
    """A message as the chat template takes it."""
    role = "system" if message.role == "developer" else message.role
    found: dict[str, Any] = {"role": role, "content": _text(message.content)}
    if isinstance(message, ToolMessage):
        found["tool_call_id"] = message.tool_call_id
    if isinstance(message, AssistantMessage):
        if message.reasoning_content is not None:
            found["reasoning_content"] = message.reasoning_content
        if message.tool_calls:
            found["tool_calls"] = [
                call.model_dump(exclude={"index"}) for call in message.tool_calls
            ]
    return found


def _text(content: Content | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text for part in content)
