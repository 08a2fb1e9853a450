"""The requests of ollama's API as this server takes them.

Takes JSON; gives requests whose values are possible, or pydantic's reasons. Knows nothing of models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from mengya.serving.api.ignored import MessageModel, NoEffect, NotingRequest
from mengya.serving.api.protocol import MAX_TOP_LOGPROBS, ApiModel, StopString, StopStrings


def _no_images(value: list[Any] | None) -> list[Any] | None:
    if value:
        raise ValueError("this model reads text only; leave the images out")
    return value


Images = Annotated[list[Any] | None, AfterValidator(_no_images)]


class OllamaFunctionCall(MessageModel):
    name: str
    arguments: dict[str, Any] = {}
    index: int | None = None
    """Accepted, without effect: replies carry it."""


class OllamaToolCall(MessageModel):
    id: str | None = None
    function: OllamaFunctionCall


class OllamaMessage(MessageModel):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    """What a reply brought under the same name; leave out to spare the context."""
    images: Images = None
    tool_calls: list[OllamaToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class Options(ApiModel):
    """How the reply is drawn."""

    num_predict: int | None = None
    """Longest reply, reasoning included; 0 and below: to the limit of the context."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """0 takes the likeliest token, above 1 flattens the distribution."""
    top_p: float | None = Field(default=None, ge=0, le=1)
    """Draw among the fewest tokens whose probabilities reach this sum."""
    top_k: int | None = Field(default=None, ge=0)
    """Draw among the k likeliest tokens; 0 takes all."""
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Draw among tokens of at least this share of the likeliest one's probability."""
    repeat_penalty: float | None = Field(default=None, ge=0.01, le=100)
    """Above 1: tokens of prompt and reply become less likely."""
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    stop: StopString | StopStrings | None = None
    """The reply ends before the first of these strings."""
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    """The same request with the same seed gives the same reply; -1 draws another one each time."""
    repeat_last_n: Literal[-1] | None = None
    """Penalties look at all tokens of prompt and reply, no other number."""
    typical_p: Literal[1] | None = None
    """Off, as 1 is."""
    tfs_z: Literal[1] | None = None
    """Off, as 1 is."""
    mirostat: Literal[0] | None = None
    """Off, as 0 is."""
    penalize_newline: Literal[True] | None = None
    """Newlines are penalized as all tokens are."""
    mirostat_tau: NoEffect = None
    mirostat_eta: NoEffect = None
    num_ctx: NoEffect = None
    """Accepted, without effect: the context is the model's."""
    num_keep: NoEffect = None
    num_batch: NoEffect = None
    num_gpu: NoEffect = None
    main_gpu: NoEffect = None
    low_vram: NoEffect = None
    f16_kv: NoEffect = None
    logits_all: NoEffect = None
    vocab_only: NoEffect = None
    use_mmap: NoEffect = None
    use_mlock: NoEffect = None
    embedding_only: NoEffect = None
    num_thread: NoEffect = None
    numa: NoEffect = None


class _Generation(NotingRequest):
    """What both ways of generating share."""

    model: str
    """A name of GET /api/tags."""
    stream: bool | None = None
    """false: one body; else a line of JSON for each piece."""
    format: Literal["", "json"] | dict[str, Any] | None = None
    """"json" or a JSON schema: the reply's form, enforced token by token."""
    options: Options | None = None
    think: bool | Literal["low", "medium", "high", "max"] | None = None
    """false asks for no reasoning, anything else for some; without it the model decides."""
    logprobs: bool | None = None
    """Log-probabilities of the reply's tokens."""
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    """Likeliest tokens at each place; needs logprobs=true."""
    keep_alive: NoEffect = None
    """Accepted, without effect: the model stays."""
    truncate: NoEffect = None
    """Accepted, without effect: what does not fit into the context is refused."""
    shift: NoEffect = None
    """Accepted, without effect: a reply ends at the limit of the context."""


class OllamaChatRequest(_Generation):
    """POST /api/chat: answer a conversation."""

    messages: Annotated[list[OllamaMessage], Field(fail_fast=True)] | None = None
    """Without any nothing is generated: such a request only waits until the model is there."""
    tools: Annotated[list[dict[str, Any]], Field(fail_fast=True, max_length=128)] | None = None
    """Functions that the model may call."""


class GenerateRequest(_Generation):
    """POST /api/generate: answer a prompt; continue it, where raw is set or the model is a base model."""

    prompt: str | None = None
    """Without one nothing is generated: such a request only waits until the model is there."""
    system: str | None = None
    raw: bool | None = None
    """true: the prompt is a text to be continued, no chat template is applied."""
    images: Images = None
    suffix: Literal[""] | None = None
    """Refused unless empty: the model cannot fill in the middle."""
    template: Literal[""] | None = None
    """Refused unless empty: the chat template is the model's."""
    context: Annotated[list[int], Field(fail_fast=True, max_length=0)] | None = None
    """Refused unless empty: nothing is stored; send the messages to /api/chat."""


class ShowRequest(NotingRequest):
    """POST /api/show."""

    model: str | None = None
    """A name of GET /api/tags."""
    name: str | None = None
    """Older name of model."""
    verbose: NoEffect = None
    """Accepted, without effect."""
