"""A request of Anthropic's Messages API -> the chat request that says the same.

Takes a checked request; gives a `ChatRequest`, or what does not fit together in Anthropic's words.
"""

from __future__ import annotations

import json
from typing import Any

from mengya.serving.api.anthropic.protocol import (
    AnthropicTool,
    AssistantTurn,
    MessagesRequest,
    TextBlock,
    ThinkingBlock,
    TokenCountRequest,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
    UserTurn,
)
from mengya.serving.api.chat_protocol import ChatRequest
from mengya.serving.api.chat_run import Terms, read_chat
from mengya.web.errors import ApiError

TERMS: Terms = {
    "max_completion_tokens": "max_tokens",
    "response_format": "output_config.format",
    "tool_choice=none": 'tool_choice={"type": "none"}',
    "tool_choice=auto or none": 'tool_choice={"type": "auto"} or none',
    "function": "tool",
    "continue_final_message": "a last message of the assistant",
}


def chat_request(request: TokenCountRequest) -> ChatRequest:
    """The same request in our own words; use it inside `said_in(TERMS)`.

    Raises:
        ApiError: parts that do not fit together.
    """
    messages = (
        [] if request.system is None else [{"role": "system", "content": _text(request.system)}]
    )
    for turn in request.messages:
        if isinstance(turn, UserTurn):
            messages += _user(turn)
        elif isinstance(turn, AssistantTurn):
            messages.append(_assistant(turn))
        else:
            messages.append({"role": "system", "content": _text(turn.content)})
    continues = messages[-1]["role"] == "assistant"
    if continues and messages[-1].get("tool_calls"):
        raise ApiError(
            400,
            "messages: the last one calls a tool; send a user message with its tool_result after it",
            param="messages",
            code="invalid_value",
        )
    choice, wanted = request.tool_choice, request.output_config
    format_ = wanted.format if wanted else None
    return read_chat(
        {
            "model": request.model,
            "messages": messages,
            "tools": [_tool(tool) for tool in request.tools] if request.tools else None,
            "tool_choice": _choice(choice) if choice else None,
            "parallel_tool_calls": False if choice and choice.disable_parallel_tool_use else None,
            "enable_thinking": {"enabled": True, "disabled": False}.get(
                request.thinking.type if request.thinking else ""
            ),
            "response_format": format_
            and {"type": "json_schema", "json_schema": {"schema": format_.schema_, "strict": True}},
            "continue_final_message": continues or None,
            **(_generation(request) if isinstance(request, MessagesRequest) else {}),
        }
    )


def _generation(request: MessagesRequest) -> dict[str, Any]:
    return {
        "max_tokens": request.max_tokens,
        "stop": request.stop_sequences or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stream": request.stream,
    }


def _text(content: str | list[TextBlock] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(block.text for block in content)


def _user(turn: UserTurn) -> list[dict[str, Any]]:
    """Results of tools are messages of their own; texts between them are the user's."""
    if isinstance(turn.content, str):
        return [{"role": "user", "content": turn.content}]
    found: list[dict[str, Any]] = []
    for block in turn.content:
        if isinstance(block, ToolResultBlock):
            result = {"role": "tool", "tool_call_id": block.tool_use_id}
            found.append({**result, "content": _text(block.content)})
        elif found and found[-1]["role"] == "user":
            found[-1]["content"] += block.text
        else:
            found.append({"role": "user", "content": block.text})
    return found or [{"role": "user", "content": ""}]


def _assistant(turn: AssistantTurn) -> dict[str, Any]:
    if isinstance(turn.content, str):
        return {"role": "assistant", "content": turn.content}
    texts = [block.text for block in turn.content if isinstance(block, TextBlock)]
    thoughts = [block.thinking for block in turn.content if isinstance(block, ThinkingBlock)]
    calls = [
        {
            "id": block.id,
            "type": "function",
            "function": {
                "name": block.name,
                "arguments": json.dumps(block.input, ensure_ascii=False),
            },
        }
        for block in turn.content
        if isinstance(block, ToolUseBlock)
    ]
    return {
        "role": "assistant",
        "content": "".join(texts),
        **({"reasoning_content": "".join(thoughts)} if thoughts else {}),
        **({"tool_calls": calls} if calls else {}),
    }


def _tool(tool: AnthropicTool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.input_schema,
        "strict": tool.strict,
    }
    given = {name: value for name, value in function.items() if value is not None}
    return {"type": "function", "function": given}


def _choice(choice: ToolChoice) -> Any:
    if choice.type == "tool":
        if choice.name is None:
            raise ApiError(
                400,
                "tool_choice.name: type=tool needs the name of a tool",
                param="tool_choice.name",
                code="missing_required_parameter",
            )
        return {"type": "function", "function": {"name": choice.name}}
    return "required" if choice.type == "any" else choice.type
