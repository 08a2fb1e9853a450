"""The settings of an endpoint: where it is, how fast it may be asked, what it costs."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from mengya.config import Config


class Sampling(Config):
    """How a completion is drawn; null leaves a value to the endpoint."""

    max_tokens: int = Field(default=1024, ge=1)
    """Tokens of one reply at most; the cost cap counts on it."""
    temperature: float | None = Field(default=0.7, ge=0, le=2)
    """0 takes the likeliest token."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Draw from the likeliest tokens that have this probability together."""
    extra: dict[str, Any] = {}
    """More fields of the request as the endpoint names them, for example {enable_thinking: false}."""

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = {"messages", "model", "stream", "n", "max_tokens", "max_completion_tokens"} & set(
            value
        )
        if ours:
            raise ValueError(f"{', '.join(sorted(ours))} may not be set here; leave it out")
        return value


class EndpointConfig(Config):
    """An OpenAI-compatible endpoint (`POST BASE_URL/chat/completions`)."""

    base_url: str = "https://api.openai.com/v1"
    """Address up to and with /v1, for example http://127.0.0.1:8000/v1 for `mengya serve` or vLLM."""
    model: str = Field(default="", max_length=200)
    """The name of the model at the endpoint."""
    key_env: str | None = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key, never the key itself; null sends none. An address
    of this machine needs no key."""
    concurrency: int = Field(default=8, ge=1, le=1024)
    """Requests under way at the same time."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Rate limit; null for none. A Retry-After of the endpoint is obeyed in any case."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """Rate limit of tokens, prompt and reply; null for none."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    """How long one request may take."""
    max_retries: int = Field(default=6, ge=0)
    """Repetitions of a request that failed for a passing reason (busy, no connection, not JSON)."""
    max_wait_seconds: float = Field(default=600.0, gt=0)
    """Stop where the endpoint asks (Retry-After) to wait longer than this."""
    input_price: float | None = Field(default=None, ge=0)
    """Price of a million tokens of prompts, in any currency."""
    output_price: float | None = Field(default=None, ge=0)
    """Price of a million tokens of replies."""
    max_cost: float | None = Field(default=None, gt=0)
    """Stop before this sum is passed, requests under way and lost ones counted at the most they can cost."""
    max_total_tokens: int | None = Field(default=None, ge=1)
    """Stop before so many tokens are passed, counted in the same way."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The name of the request's field; newer models of OpenAI know only the second."""
    sampling: Sampling = Sampling()

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an address such as http://127.0.0.1:8000/v1")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _prices(self) -> EndpointConfig:
        if self.max_cost is not None and None in (self.input_price, self.output_price):
            raise ValueError(
                "max_cost needs both prices of a million tokens; write input_price=NUMBER output_price=NUMBER"
            )
        return self

    @property
    def is_local(self) -> bool:
        """Whether the address is one of this machine."""
        host = urlsplit(self.base_url).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")
