"""The requests of OpenAI's API as this server takes them: typed, bounded, nothing ignored in silence.

Takes JSON; gives requests whose values are possible, or pydantic's reasons. Knows nothing of models:
what depends on one (its context, its vocabulary) is checked where the request meets it.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from mengya.generation.sampling import SamplingParams

MAX_CHOICES = 16
MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20
MAX_INPUTS = 2048
_LEAST_TOP_P = 1e-6  # less is nothing in float32; the likeliest token always stays
Inputs = (
    str
    | Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=MAX_INPUTS)]
    | Annotated[list[int], Field(fail_fast=True, min_length=1)]
    | Annotated[
        list[Annotated[list[int], Field(fail_fast=True)]],
        Field(fail_fast=True, min_length=1, max_length=MAX_INPUTS),
    ]
)
StopString = Annotated[str, Field(min_length=1, max_length=256)]
StopStrings = Annotated[list[StopString], Field(max_length=MAX_STOPS)]
_SURROGATE = re.compile("[\ud800-\udfff]")


class ApiModel(BaseModel):
    """Base of requests: unknown fields and numbers that are none (NaN, Infinity) are refused.

    An unknown field that is null asks for nothing: many clients send all that they know that way.
    """

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _without_unknown_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        known = names_of(cls)
        return {key: one for key, one in value.items() if one is not None or key in known}


def names_of(model: type[BaseModel]) -> set[str]:
    """The names by which JSON may set the model's fields."""
    return {field.alias or name for name, field in model.model_fields.items()}


class ApiBody(ApiModel):
    """A request body."""

    @model_validator(mode="before")
    @classmethod
    def _unicode(cls, value: Any) -> Any:
        """Python's JSON reads half a surrogate pair (\\ud800), which no tokenizer can take, and NaN.

        Numbers that are fields themselves are checked as such, with their names.
        """
        todo = [*value.keys(), *value.values()] if isinstance(value, dict) else [value]
        todo = [item for item in todo if not isinstance(item, float)]
        while todo:
            item = todo.pop()
            if isinstance(item, dict):
                todo += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                todo += item
            elif isinstance(item, str) and _SURROGATE.search(item):
                raise ValueError("a text holds half of a surrogate pair, which is no character")
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError("a number is NaN or infinite, which JSON does not have")
        return value


class ApiRequest(ApiBody):
    """A request of OpenAI's API."""

    model: str
    """A name of GET /v1/models."""
    user: str | None = None
    """Accepted, without effect."""


class StreamOptions(ApiModel):
    include_usage: bool | None = None
    """One more event before [DONE], with the tokens of the full request."""
    include_obfuscation: bool | None = None
    """Accepted, without effect: this server pads no events."""


class GenerationRequest(ApiRequest):
    """What chat and plain completions share."""

    stream: bool | None = None
    """Answer with server-sent events as the tokens come, the last one [DONE]."""
    stream_options: StreamOptions | None = None
    """Only together with stream."""
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    """Completions for each prompt; with a seed, completion i is drawn with seed + i."""
    stop: str | list[str] | None = None
    """The completion ends before the first of these strings; at most 16, of 1 to 256 characters."""
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    """The same request with the same seed gives the same completion."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """0 takes the likeliest token, above 1 flattens the distribution."""
    top_p: float | None = Field(default=None, ge=0, le=1)
    """Draw among the fewest tokens whose probabilities reach this sum; 0 takes the likeliest."""
    top_k: int | None = Field(default=None, ge=0)
    """Draw among the k likeliest tokens; 0 takes all. Not of OpenAI's API."""
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Draw among tokens of at least this share of the likeliest one's probability. Not of OpenAI's API."""
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    """Above 1: tokens of prompt and completion become less likely. Not of OpenAI's API."""
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    """Subtracted from the logit of every token that the completion already holds."""
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    """Subtracted once for each time that the completion already holds the token."""
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    """Token id -> what is added to its logit."""

    @field_validator("stop")
    @classmethod
    def _bounded_stops(cls, value: str | list[str] | None) -> str | list[str] | None:
        stops = [value] if isinstance(value, str) else value or []
        if len(stops) > MAX_STOPS:
            raise ValueError(f"at most {MAX_STOPS} stop strings, got {len(stops)}")
        if any(not 1 <= len(stop) <= 256 for stop in stops):
            raise ValueError("a stop string has 1 to 256 characters")
        return value

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for key in value or {}:
            if not (key.isascii() and key.isdigit() and len(key) <= 10):
                raise ValueError(f"{key[:40]!r} is no token id; keys are ids written as text")
        return value

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream=true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, whichever way they were written."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(
        self, defaults: SamplingParams, max_new_tokens: int, choice: int
    ) -> SamplingParams:
        """How choice number `choice` is drawn: the request over `defaults`."""
        names = (
            "temperature", "top_p", "top_k", "min_p", "repetition_penalty",
            "presence_penalty", "frequency_penalty",
        )  # fmt: skip
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if "top_p" in given:
            given["top_p"] = max(given["top_p"], _LEAST_TOP_P)
        seed = None if self.seed is None else (self.seed + choice) % 2**63
        bias = {int(token): value for token, value in (self.logit_bias or {}).items()}
        changes = {"max_new_tokens": max_new_tokens, "seed": seed, "logit_bias": bias}
        return SamplingParams.model_validate({**defaults.model_dump(), **given, **changes})


class CompletionRequest(GenerationRequest):
    """POST /v1/completions: continue a text."""

    prompt: Inputs
    """A text, which begins a document; its token ids, taken as they are; or a list of either."""
    max_tokens: int | None = Field(default=None, ge=-1)
    """Longest completion; none: 16, as in OpenAI's API; -1: to the limit of the context."""
    echo: bool | None = None
    """Give the prompt back before its completion; with logprobs, those of its tokens as well."""
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    """Log-probabilities of each token and of this many likeliest ones."""
    best_of: int | None = None
    """Accepted where it equals n: nothing is drawn that is not given out."""

    @model_validator(mode="after")
    def _best_of_is_n(self) -> Self:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError(
                "best_of must equal n: this server gives out every completion it draws"
            )
        return self


class EmbeddingRequest(ApiRequest):
    """POST /v1/embeddings."""

    input: Inputs
    """A text, its token ids, or a list of either."""
    encoding_format: Literal["float", "base64"] | None = None
    """base64: little-endian float32."""
    dimensions: None = None
    """Refused: a vector cut short would mean nothing."""
