"""A chat request -> what the engine is to do: the prompt's ids, sampling, grammar.

The one place where messages and tools of the API meet the chat template. Knows nothing of replies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mengya.errors import UserError
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
from mengya.serving.api.prompts import max_new_tokens
from mengya.serving.runtime.grammar import JsonFilter, call_schema
from mengya.serving.runtime.reply_parser import CALL, THINK
from mengya.serving.runtime.served import Served
from mengya.serving.runtime.service import Service
from mengya.tokenizer.chat_template import encode_prompt
from mengya.web.errors import ApiError


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A request ready for the engine.

    Attributes:
        opened: what the prompt has already opened of the reply, `<think>` or `<tool_call>`.
    """

    requests: list[Request]
    opened: str | None


def prepare_chat(service: Service, request: ChatRequest) -> ChatPrompt:
    """Render, tokenize and bound a request; slow: call it through `prepare`.

    Raises:
        ApiError, UserError: what does not fit this model.
    """
    served, name = service.served(), service.named(request.model)
    tokenizer = served.tokenizer
    tools = offered_tools(request)
    messages = [template_message(message) for message in request.messages]
    prompt = encode_prompt(
        tokenizer, messages, [tool.written for tool in tools] or None, request.enable_thinking
    )
    opened = THINK if str(tokenizer.decode(prompt[-4:])).rstrip().endswith(THINK) else None
    schema = _schema(request)
    if request.tool_choice not in (None, "none", "auto"):
        # The reply is constrained to the JSON inside the tags; the prompt opens them.
        opened = CALL
        opening = tokenizer.backend_tokenizer.encode(f"{CALL}\n", add_special_tokens=False)
        prompt = [*prompt, *opening.ids]
    budget = max_new_tokens(served.context, len(prompt), request.limit, "max_completion_tokens")
    top = (request.top_logprobs or 0) if request.logprobs else None
    defaults = service.settings.sampling.params()
    requests = [
        Request(
            prompt=tuple(prompt),
            params=request.sampling(defaults, budget, choice),
            stop_token_ids=served.stop_token_ids,
            top_logprobs=top,
            adapter=name.adapter,
            grammar=_grammar(served, schema) if schema is not None else None,
        )
        for choice in range(request.n or 1)
    ]
    return ChatPrompt(requests, opened)


def offered_tools(request: ChatRequest) -> list[Tool]:
    """The tools that the prompt describes to the model."""
    return [] if request.tool_choice == "none" else request.tools or []


def _schema(request: ChatRequest) -> dict[str, Any] | None:
    """The schema of the reply's JSON, None for a free reply."""
    wanted = request.tool_choice
    if wanted not in (None, "none", "auto"):
        functions = [
            tool.function.model_dump(include={"name", "parameters"})
            for tool in request.tools or []
            if not isinstance(wanted, NamedToolChoice) or tool.function.name == wanted.function.name
        ]
        return call_schema(functions)
    if isinstance(request.response_format, JsonSchemaFormat):
        schema = request.response_format.json_schema.schema_
        return {"type": "object"} if schema is None else schema
    return {"type": "object"} if request.json_wanted else None


def _grammar(served: Served, schema: dict[str, Any]) -> JsonFilter:
    try:
        return served.grammars.json_schema(schema)
    except UserError as error:
        raise ApiError(400, str(error), code="unsupported") from error
    except ValueError as error:
        raise ApiError(
            400,
            f"the JSON schema cannot be enforced: {error}",
            param="response_format",
            code="invalid_json_schema",
        ) from error


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
