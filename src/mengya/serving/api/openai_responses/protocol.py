"""The request of OpenAI's Responses API as this server takes it.

Takes JSON; gives a request whose values are possible, or pydantic's reasons. Knows nothing of models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from mengya.serving.api.chat_protocol import TextFormat
from mengya.serving.api.ignored import MessageModel, NoEffect, NotingRequest
from mengya.serving.api.protocol import MAX_TOP_LOGPROBS, ApiModel

Status = Literal["in_progress", "completed", "incomplete"]


class TextPart(MessageModel):
    type: Literal["input_text", "output_text", "text", "summary_text", "reasoning_text"]
    text: str
    annotations: list[Any] | None = None
    """Accepted, without effect: replies carry it."""
    logprobs: list[Any] | None = None
    """Accepted, without effect: replies carry it."""


Content = str | list[TextPart]


class MessageItem(MessageModel):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: str | None = None
    """Accepted, without effect, as is status: replies carry them."""
    status: Status | None = None


class FunctionCallItem(MessageModel):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    """JSON, as the model wrote it."""
    id: str | None = None
    status: Status | None = None


class FunctionOutputItem(MessageModel):
    type: Literal["function_call_output"]
    call_id: str
    output: Content
    id: str | None = None
    status: Status | None = None


class ReasoningItem(MessageModel):
    """Reasoning of an earlier reply; leave it out to spare the context."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: list[TextPart] = []
    content: list[TextPart] | None = None
    status: Status | None = None


def _type_of(item: Any) -> Any:
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return kind or "message"


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(_type_of),
]


class FunctionTool(ApiModel):
    """A function; the tools that OpenAI's own servers run are refused."""

    type: Literal["function"]
    name: str = Field(pattern=r"^[\w.-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON schema of the arguments."""
    strict: bool | None = None
    """Enforced where tool_choice asks for a call."""
    output_schema: NoEffect = None
    """Accepted, without effect."""


class NamedTool(ApiModel):
    type: Literal["function"]
    name: str


class JsonObject(ApiModel):
    type: Literal["json_object"]


class JsonSchemaText(ApiModel):
    type: Literal["json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class TextOptions(ApiModel):
    format: (
        Annotated[TextFormat | JsonObject | JsonSchemaText, Field(discriminator="type")] | None
    ) = None
    """The answer's form, enforced token by token."""
    verbosity: NoEffect = None
    """Accepted, without effect."""


class Reasoning(MessageModel):
    """Ignored and named, but for effort=none, which asks for no reasoning."""

    effort: str | None = None


class StreamOptions(ApiModel):
    include_obfuscation: bool | None = None
    """Accepted, without effect: this server pads no events."""


class ResponsesRequest(NotingRequest):
    """POST /v1/responses: answer a conversation."""

    model: str
    """A name of GET /v1/models."""
    input: str | Annotated[list[Item], Field(fail_fast=True, min_length=1)]
    """A text, or messages, calls of functions and their outputs."""
    instructions: str | None = None
    """A system message before the input."""
    stream: bool | None = None
    """Answer with server-sent events as the tokens come."""
    stream_options: StreamOptions | None = None
    max_output_tokens: int | None = Field(default=None, ge=-1)
    """Longest reply, reasoning included; none and -1: to the limit of the context."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """0 takes the likeliest token, above 1 flattens the distribution."""
    top_p: float | None = Field(default=None, ge=0, le=1)
    """Draw among the fewest tokens whose probabilities reach this sum."""
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    """Log-probabilities of the answer's tokens and of this many likeliest ones."""
    tools: list[FunctionTool] | None = Field(default=None, max_length=128)
    """Functions that the model may call."""
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    """required, or one function by name: the reply is a call of it, constrained to its schema."""
    parallel_tool_calls: bool | None = None
    """false: the reply ends with its first call."""
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    """Ignored, but for effort=none, which asks for no reasoning."""
    include: list[str] | None = None
    """message.output_text.logprobs gives log-probabilities; others are ignored."""
    metadata: dict[str, str] | None = None
    """Given back in the answer."""
    truncation: Literal["disabled"] | None = None
    """auto is refused: what does not fit into the context is not cut here."""
    background: Literal[False] | None = None
    """true is refused: an answer is given at once."""
    store: bool | None = None
    """true is ignored: nothing is stored."""
    previous_response_id: str | None = None
    """Refused: nothing is stored."""
    conversation: Any = None
    """Refused: nothing is stored."""
    max_tool_calls: NoEffect = None
    """Accepted, without effect: it bounds tools of OpenAI's servers, which are not here."""
    service_tier: NoEffect = None
    """Accepted, without effect."""
    user: NoEffect = None
    """Accepted, without effect."""
    safety_identifier: NoEffect = None
    """Accepted, without effect."""
    prompt_cache_key: NoEffect = None
    """Accepted, without effect: shared prefixes of prompts are always reused."""
    prompt_cache_retention: NoEffect = None
    """Accepted, without effect."""
    prompt_cache_options: NoEffect = None
    """Accepted, without effect."""

    @field_validator("previous_response_id", "conversation")
    @classmethod
    def _nothing_is_stored(cls, value: Any) -> Any:
        if value is not None:
            raise ValueError(
                "nothing is stored here; send the conversation so far as items of input"
            )
        return value

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer's tokens come with log-probabilities."""
        return self.top_logprobs is not None or _LOGPROBS in (self.include or [])

    @property
    def ignored(self) -> list[str]:
        """Paths of what was sent and has no effect."""
        found = [name for name in self._ignored if not name.startswith("reasoning.")]
        if self.reasoning is not None and self.reasoning.effort != "none":
            found.append("reasoning")
        if self.store:
            found.append("store")
        return found + [f"include.{one}" for one in self.include or [] if one != _LOGPROBS]


_LOGPROBS = "message.output_text.logprobs"
