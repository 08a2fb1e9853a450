"""The request of POST /v1/chat/completions: messages, tools, the form of the answer.

Takes JSON; gives a request whose parts fit together, or pydantic's reasons. Knows nothing of models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    model_validator,
)

from mengya.serving.api.ignored import MessageModel, ignored_in
from mengya.serving.api.protocol import MAX_TOP_LOGPROBS, ApiModel, GenerationRequest


class TextPart(MessageModel):
    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Any = None
    """Accepted, without effect: shared prefixes of prompts are always reused."""


Content = str | list[TextPart]


class FunctionCall(MessageModel):
    name: str
    arguments: str
    """JSON, as the model wrote it."""


class ToolCall(MessageModel):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None
    """Accepted, without effect: streams number their calls, and some clients send that back."""


class SystemMessage(MessageModel):
    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(MessageModel):
    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(MessageModel):
    role: Literal["assistant"]
    content: Content | None = None
    reasoning_content: str | None = None
    """What a reply of this server brought under the same name; leave out to spare the context."""
    reasoning: str | None = None
    """vLLM's name of it."""
    prefix: bool | None = None
    """true on the last message: the reply continues it, as continue_final_message asks."""
    partial: bool | None = None
    """Another name of prefix."""
    tool_calls: list[ToolCall] | None = None
    name: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: list[Any] | None = None
    """Accepted, without effect: clients send replies back as they came."""

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if self.reasoning_content is None:
            self.reasoning_content = self.reasoning
        if self.content is None and not self.tool_calls and self.reasoning_content is None:
            raise ValueError("an assistant message needs content or tool_calls")
        return self


class ToolMessage(MessageModel):
    role: Literal["tool"]
    content: Content
    tool_call_id: str
    name: str | None = None


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class Function(ApiModel):
    name: str = Field(pattern=r"^[\w.-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON schema of the arguments."""
    strict: bool | None = None
    """Enforced where tool_choice asks for a call; elsewhere the model writes what it writes."""


class Tool(ApiModel):
    type: Literal["function"]
    function: Function
    _written: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_the_writing(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        tool = handler(value)
        tool._written = value if isinstance(value, dict) else tool.model_dump(exclude_unset=True)
        return tool

    @property
    def written(self) -> dict[str, Any]:
        """The tool as it was sent, its keys in their order: what the chat template shows the model."""
        return self._written


class NamedFunction(ApiModel):
    name: str


class NamedToolChoice(ApiModel):
    type: Literal["function"]
    function: NamedFunction


class JsonSchema(ApiModel):
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextFormat(ApiModel):
    type: Literal["text"]


class JsonObjectFormat(ApiModel):
    type: Literal["json_object"]


class JsonSchemaFormat(ApiModel):
    type: Literal["json_schema"]
    json_schema: JsonSchema


class ChatTemplateOptions(ApiModel):
    """Others than these are ignored where the model's chat template does not know them, else refused."""

    model_config = ConfigDict(extra="allow")

    enable_thinking: bool | None = None
    """false asks for an answer without reasoning, where the chat template knows how."""
    thinking: bool | None = None
    """Another name of it."""


class ThinkingOptions(MessageModel):
    type: Literal["enabled", "disabled", "auto", "adaptive"]


class ChatRequest(GenerationRequest):
    """POST /v1/chat/completions: answer a conversation."""

    messages: Annotated[list[Message], Field(fail_fast=True)] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=-1)
    """Older name of max_completion_tokens."""
    max_completion_tokens: int | None = Field(default=None, ge=-1)
    """Longest reply, reasoning included; none and -1: to the limit of the context."""
    logprobs: bool | None = None
    """Log-probabilities of the reply's tokens."""
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    """Likeliest tokens at each place; needs logprobs=true."""
    tools: list[Tool] | None = Field(default=None, max_length=128)
    """Functions that the model may call."""
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    """required, or one function by name: the reply is a call of it, constrained to its schema."""
    parallel_tool_calls: bool | None = None
    """false: the reply ends with its first call."""
    response_format: (
        Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
        | None
    ) = None
    """The answer's form, enforced token by token."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    """none asks for no reasoning; any other leaves it to the model."""
    chat_template_kwargs: ChatTemplateOptions | None = None
    """Settings of the chat template. Not of OpenAI's API."""
    enable_thinking: bool | None = None
    """The same as in chat_template_kwargs."""
    thinking: bool | ThinkingOptions | None = None
    """The same, also as {"type": "disabled"}."""
    continue_final_message: bool | None = None
    """true: the reply continues the last message, an assistant's. Not of OpenAI's API."""
    add_generation_prompt: bool | None = None
    """false only together with continue_final_message."""
    verbosity: str | None = None
    """Accepted, without effect."""
    modalities: list[Literal["text"]] | None = None
    """Text only."""
    store: bool | None = None
    """Accepted, without effect: nothing is stored."""
    metadata: dict[str, str] | None = None
    """Accepted, without effect."""
    service_tier: str | None = None
    """Accepted, without effect."""
    safety_identifier: str | None = None
    """Accepted, without effect."""
    prompt_cache_key: str | None = None
    """Accepted, without effect: shared prefixes of prompts are always reused."""
    prompt_cache_retention: str | None = None
    """Accepted, without effect."""

    _ignored: list[str] = PrivateAttr(default_factory=list)

    @model_validator(mode="wrap")
    @classmethod
    def _note_what_is_ignored(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        request = handler(value)
        if isinstance(value, dict):
            request._ignored = [
                *(name for name in _WITHOUT_EFFECT if value.get(name) is not None),
                *ignored_in(value["messages"], request.messages, "messages"),
            ]
        return request

    @property
    def ignored(self) -> list[str]:
        """Paths of what was sent and has no effect."""
        return self._ignored

    @property
    def continues(self) -> bool:
        """Whether the reply continues the last message."""
        last = self.messages[-1]
        marked = isinstance(last, AssistantMessage) and (last.prefix or last.partial)
        return bool(self.continue_final_message or marked)

    @model_validator(mode="after")
    def _continue_what_can_be(self) -> Self:
        last = self.messages[-1]
        if self.continues:
            if not isinstance(last, AssistantMessage) or last.tool_calls or last.content is None:
                raise ValueError(
                    "continue_final_message needs an assistant's message with content at the end"
                )
            if self.json_wanted or self.tool_choice not in (None, "none", "auto"):
                raise ValueError(
                    "continue_final_message cannot be held to a form: send it without "
                    "response_format and with tool_choice=auto or none"
                )
        elif self.add_generation_prompt is False:
            raise ValueError("add_generation_prompt=false needs continue_final_message=true")
        return self

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs=true")
        given = (self.max_tokens, self.max_completion_tokens)
        if None not in given and given[0] != given[1]:
            raise ValueError("max_tokens and max_completion_tokens differ; send one of them")
        if 0 in given:
            raise ValueError(f"{self.limit_name} must be at least 1, or -1 for the limit")
        names = [tool.function.name for tool in self.tools or []]
        if self.tool_choice not in (None, "none", "auto") and not names:
            raise ValueError("tool_choice needs tools")
        if isinstance(self.tool_choice, NamedToolChoice):
            wanted = self.tool_choice.function.name
            if wanted not in names:
                raise ValueError("tool_choice names a function that is not among the tools")
        if self.json_wanted and names and self.tool_choice != "none":
            raise ValueError(
                "response_format constrains the full reply to JSON, so that no tool could be called; "
                "send tool_choice=none, or no response_format"
            )
        return self

    @property
    def json_wanted(self) -> bool:
        """Whether the answer must be JSON."""
        return isinstance(self.response_format, JsonObjectFormat | JsonSchemaFormat)

    @property
    def limit(self) -> int | None:
        """Longest reply in tokens, None for as long as the context allows."""
        given = self.max_completion_tokens if self.max_tokens is None else self.max_tokens
        return None if given in (None, -1) else given

    @property
    def limit_name(self) -> str:
        """The field that sets the limit, in the words of the client."""
        return "max_completion_tokens" if self.max_tokens is None else "max_tokens"

    @property
    def wants_thinking(self) -> bool | None:
        """The chat template's variable of this name."""
        options = self.chat_template_kwargs or ChatTemplateOptions()
        thinking = self.thinking
        if isinstance(thinking, ThinkingOptions):
            thinking = {"enabled": True, "disabled": False}.get(thinking.type)
        effort = False if self.reasoning_effort == "none" else None
        asked = (options.enable_thinking, options.thinking, self.enable_thinking, thinking, effort)
        return next((one for one in asked if one is not None), None)

    @property
    def template_variables(self) -> set[str]:
        """What else chat_template_kwargs sets."""
        options = self.chat_template_kwargs
        return set(options.model_extra or {}) if options is not None else set()


_WITHOUT_EFFECT = (
    "user", "verbosity", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention",
)  # fmt: skip
