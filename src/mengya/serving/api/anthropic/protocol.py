"""The requests of Anthropic's Messages API as this server takes them.

Takes JSON; gives requests whose values are possible, or pydantic's reasons. Knows nothing of models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from mengya.serving.api.ignored import MessageModel, NoEffect, NotingRequest
from mengya.serving.api.protocol import ApiModel, StopStrings


class TextBlock(MessageModel):
    type: Literal["text"]
    text: str
    citations: Any = None
    """Accepted, without effect: replies carry it."""


class ThinkingBlock(MessageModel):
    type: Literal["thinking"]
    thinking: str
    signature: str | None = None
    """Accepted, without effect: nothing is signed here."""


class ToolUseBlock(MessageModel):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    caller: Any = None
    """Accepted, without effect: replies carry it."""


class ToolResultBlock(MessageModel):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextBlock] | None = None
    is_error: NoEffect = None
    """Accepted, without effect: the content says what went wrong."""


UserBlock = Annotated[TextBlock | ToolResultBlock, Field(discriminator="type")]
AssistantBlock = Annotated[TextBlock | ThinkingBlock | ToolUseBlock, Field(discriminator="type")]


class UserTurn(MessageModel):
    role: Literal["user"]
    content: str | list[UserBlock]


class AssistantTurn(MessageModel):
    role: Literal["assistant"]
    content: str | list[AssistantBlock]


class SystemTurn(MessageModel):
    role: Literal["system"]
    content: str | list[TextBlock]


Turn = Annotated[UserTurn | AssistantTurn | SystemTurn, Field(discriminator="role")]


class AnthropicTool(ApiModel):
    """A function; the tools that Anthropic's own servers run are refused."""

    type: Literal["custom"] | None = None
    name: str = Field(pattern=r"^[\w.-]{1,64}$")
    description: str | None = None
    input_schema: dict[str, Any]
    """JSON schema of the input."""
    strict: bool | None = None
    """Enforced where tool_choice asks for a call."""
    cache_control: NoEffect = None
    """Accepted, without effect: shared prefixes of prompts are always reused."""
    eager_input_streaming: NoEffect = None
    """Accepted, without effect: a call is sent once it is complete."""


class ToolChoice(ApiModel):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    """Of the tool, with type=tool."""
    disable_parallel_tool_use: bool | None = None
    """true: the reply ends with its first call."""


class Thinking(ApiModel):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: NoEffect = None
    """Accepted, without effect: max_tokens bounds reasoning and answer together."""
    display: NoEffect = None
    """Accepted, without effect: reasoning is given out as the model wrote it."""


class JsonFormat(ApiModel):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(ApiModel):
    format: JsonFormat | None = None
    """The answer's form, enforced token by token."""
    effort: NoEffect = None
    """Accepted, without effect."""


class TokenCountRequest(NotingRequest):
    """POST /v1/messages/count_tokens: how many tokens a prompt has."""

    model: str
    """A name of GET /v1/models."""
    messages: Annotated[list[Turn], Field(fail_fast=True)] = Field(min_length=1)
    """When the last one is the assistant's, the reply continues it."""
    system: str | list[TextBlock] | None = None
    tools: list[AnthropicTool] | None = Field(default=None, max_length=128)
    tool_choice: ToolChoice | None = None
    """any, or tool with a name: the reply is a call, constrained to the tool's schema."""
    thinking: Thinking | None = None
    """disabled asks for no reasoning, enabled for some; without it the model decides."""
    output_config: OutputConfig | None = None
    cache_control: NoEffect = None
    """Accepted, without effect: shared prefixes of prompts are always reused."""
    user_profile_id: NoEffect = None
    """Accepted, without effect."""
    workspace_id: NoEffect = None
    """Accepted, without effect."""
    speed: NoEffect = None
    """Accepted, without effect."""


class MessagesRequest(TokenCountRequest):
    """POST /v1/messages: answer a conversation."""

    max_tokens: int = Field(ge=-1)
    """Longest reply, reasoning included; -1 (not of Anthropic's API): to the limit of the context."""
    stream: bool | None = None
    """Answer with server-sent events as the tokens come."""
    stop_sequences: StopStrings | None = None
    """The reply ends before the first of these strings."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """0 takes the likeliest token, above 1 flattens the distribution."""
    top_p: float | None = Field(default=None, ge=0, le=1)
    """Draw among the fewest tokens whose probabilities reach this sum."""
    top_k: int | None = Field(default=None, ge=0)
    """Draw among the k likeliest tokens; 0 takes all."""
    metadata: NoEffect = None
    """Accepted, without effect."""
    service_tier: NoEffect = None
    """Accepted, without effect."""
    inference_geo: NoEffect = None
    """Accepted, without effect."""
    diagnostics: NoEffect = None
    """Accepted, without effect."""
