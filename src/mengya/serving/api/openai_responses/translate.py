"""A request of OpenAI's Responses API -> the chat request that says the same.

Takes a checked request; gives a `ChatRequest`, or what does not fit together in that API's words.
"""

from __future__ import annotations

from typing import Any

from mengya.serving.api.chat_protocol import ChatRequest
from mengya.serving.api.chat_run import Terms, read_chat
from mengya.serving.api.openai_responses.protocol import (
    Content,
    FunctionCallItem,
    FunctionOutputItem,
    FunctionTool,
    JsonSchemaText,
    MessageItem,
    NamedTool,
    ReasoningItem,
    ResponsesRequest,
    TextOptions,
)

TERMS: Terms = {
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "messages": "input",
}


def chat_request(request: ResponsesRequest) -> ChatRequest:
    """The same request in our own words; use it inside `said_in(TERMS)`.

    Raises:
        ApiError: parts that do not fit together.
    """
    choice = request.tool_choice
    if isinstance(choice, NamedTool):
        choice = {"type": "function", "function": {"name": choice.name}}
    effort = request.reasoning.effort if request.reasoning else None
    return read_chat(
        {
            "model": request.model,
            "messages": _messages(request),
            "stream": request.stream,
            "max_completion_tokens": request.max_output_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "logprobs": request.wants_logprobs or None,
            "top_logprobs": request.top_logprobs,
            "tools": [_tool(tool) for tool in request.tools] if request.tools else None,
            "tool_choice": choice,
            "parallel_tool_calls": request.parallel_tool_calls,
            "response_format": _format(request.text),
            "reasoning_effort": "none" if effort == "none" else None,
        }
    )


def _messages(request: ResponsesRequest) -> list[dict[str, Any]]:
    """Items as messages: reasoning, text and calls that follow one another are one reply."""
    found: list[dict[str, Any]] = []
    if request.instructions is not None:
        found.append({"role": "system", "content": request.instructions})
    items = request.input
    if isinstance(items, str):
        return [*found, {"role": "user", "content": items}]
    is_open = False  # whether the last message is a reply that the next item may belong to
    for item in items:
        if isinstance(item, FunctionOutputItem):
            result = {"role": "tool", "tool_call_id": item.call_id}
            found.append({**result, "content": _text(item.output)})
            is_open = False
        elif isinstance(item, MessageItem) and item.role != "assistant":
            found.append({"role": item.role, "content": _text(item.content)})
            is_open = False
        else:
            if not is_open or isinstance(item, ReasoningItem):
                found.append({"role": "assistant", "content": ""})
                is_open = True
            _extend(found[-1], item)
    return found


def _extend(reply: dict[str, Any], item: ReasoningItem | MessageItem | FunctionCallItem) -> None:
    if isinstance(item, MessageItem):
        reply["content"] += _text(item.content)
    elif isinstance(item, ReasoningItem):
        reply["reasoning_content"] = _text(item.content or item.summary)
    else:
        function = {"name": item.name, "arguments": item.arguments}
        call = {"id": item.call_id, "type": "function", "function": function}
        reply.setdefault("tool_calls", []).append(call)


def _text(content: Content) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _tool(tool: FunctionTool) -> dict[str, Any]:
    function = tool.model_dump(
        include={"name", "description", "parameters", "strict"}, exclude_none=True
    )
    return {"type": "function", "function": function}


def _format(text: TextOptions | None) -> dict[str, Any] | None:
    wanted = text.format if text else None
    if not isinstance(wanted, JsonSchemaText):
        return None if wanted is None else {"type": wanted.type}
    schema = {"name": wanted.name, "schema": wanted.schema_, "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": schema}
