"""A request of ollama's API -> the chat or completion request that says the same.

Takes a checked request; gives ours, or what does not fit together in ollama's words.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from mengya.serving.api.chat_protocol import ChatRequest
from mengya.serving.api.chat_run import Terms, read_chat
from mengya.serving.api.ollama.protocol import (
    GenerateRequest,
    OllamaChatRequest,
    OllamaMessage,
    Options,
)
from mengya.serving.api.protocol import CompletionRequest
from mengya.web.errors import ApiError, explain

TERMS: Terms = {
    "max_completion_tokens": "options.num_predict",
    "max_tokens": "options.num_predict",
    "response_format": "format",
    "tool_choice=none": "no tools",
    "continue_final_message": "a last message of the assistant",
    "GET /v1/models": "GET /api/tags",
}


def chat_request(request: OllamaChatRequest, model: str) -> ChatRequest:
    """The same conversation in our own words; use it inside `said_in(TERMS)`.

    Raises:
        ApiError: parts that do not fit together.
    """
    messages = [_message(message) for message in request.messages or []]
    tools = [{"type": "function", **tool} for tool in request.tools or []]
    return _chat(request, model, messages, tools)


def prompt_request(request: GenerateRequest, model: str) -> ChatRequest:
    """A prompt as a conversation; as `chat_request`."""
    messages = [{"role": "system", "content": request.system}] if request.system else []
    return _chat(request, model, [*messages, {"role": "user", "content": request.prompt}], [])


def _chat(
    request: OllamaChatRequest | GenerateRequest,
    model: str,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
) -> ChatRequest:
    last = messages[-1]
    continues = last["role"] == "assistant" and not last.get("tool_calls")
    thinks = None if request.think is None else bool(request.think)
    return read_chat(
        {
            "model": model,
            "messages": messages,
            "tools": tools or None,
            "response_format": _format(request.format),
            "enable_thinking": thinks,
            "continue_final_message": continues or None,
            "logprobs": request.logprobs,
            "top_logprobs": request.top_logprobs,
            **_sampling(request.options),
            "max_completion_tokens": _limit(request.options),
        }
    )


def completion_request(request: GenerateRequest, model: str) -> CompletionRequest:
    """A text to be continued; as `chat_request`.

    Raises:
        ApiError: what only a conversation can have.
    """
    for name, value in (
        ("system", request.system), ("format", request.format), ("think", request.think)
    ):  # fmt: skip
        if value:
            raise ApiError(
                400,
                f"{name}: a text that is continued (raw=true, or a base model) has none; leave it out, "
                "or ask a chat model without raw",
                param=name,
                code="invalid_value",
            )
    if request.top_logprobs is not None and not request.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs=true", param="top_logprobs")
    body = {
        "model": model,
        "prompt": request.prompt,
        "logprobs": (request.top_logprobs or 0) if request.logprobs else None,
        "max_tokens": _limit(request.options) or -1,
        **_sampling(request.options),
    }
    try:
        return CompletionRequest.model_validate(body)
    except ValidationError as error:
        raise explain(error.errors(), body) from error


def _message(message: OllamaMessage) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.role == "tool":
        found["tool_call_id"] = message.tool_call_id or message.tool_name or ""
    if message.role == "assistant" and message.thinking is not None:
        found["reasoning_content"] = message.thinking
    if message.role == "assistant" and message.tool_calls:
        found["tool_calls"] = [
            {
                "id": call.id or "",
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": json.dumps(call.function.arguments, ensure_ascii=False),
                },
            }
            for call in message.tool_calls
        ]
    return found


def _format(wanted: str | dict[str, Any] | None) -> dict[str, Any] | None:
    if not wanted and wanted != {}:
        return None
    if isinstance(wanted, dict):
        return {"type": "json_schema", "json_schema": {"schema": wanted}}
    return {"type": "json_object"}


def _limit(options: Options | None) -> int | None:
    asked = options.num_predict if options else None
    return None if asked is None or asked <= 0 else asked


def _sampling(options: Options | None) -> dict[str, Any]:
    options = options or Options()
    return {
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": options.top_k,
        "min_p": options.min_p,
        "repetition_penalty": options.repeat_penalty,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "stop": options.stop or None,
        "seed": None if options.seed == -1 else options.seed,
    }
