"""What the owner of a server decides about its API; the key alone comes from the environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, StringConstraints

from mengya.config import Config
from mengya.generation.sampling import SamplingParams
from mengya.web.settings import WebSettings

Starter = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class SamplingDefaults(Config):
    """Sampling where a request does not set it."""

    temperature: float = Field(default=SamplingParams().temperature, ge=0, le=2)
    """Logits are divided by it: 0 always takes the likeliest token, above 1 flattens."""
    top_p: float = Field(default=SamplingParams().top_p, gt=0, le=1)
    """Draw among the fewest tokens whose probabilities reach this sum; 1 takes all."""
    top_k: int = Field(default=0, ge=0)
    """Draw among the k likeliest tokens only; 0 takes all."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Draw among tokens of at least this share of the likeliest one's probability."""
    repetition_penalty: PositiveFloat = 1.0
    """Above 1 makes tokens of the prompt and the completion less likely to come again."""

    def params(self) -> SamplingParams:
        """The same as the engine takes it."""
        return SamplingParams(**self.model_dump())


class ServerSettings(WebSettings):
    """The web settings, and what is special to serving a model."""

    page: bool = True
    """Show the chat page at /."""
    starters: list[Starter] = Field(default=[], max_length=8)
    """What the chat page offers to ask first (a base model: to continue); empty: a few that suit the
    kind of model."""
    clamp_max_tokens: bool = False
    """A request that asks for more tokens than the context has room for gets what room there is (true),
    for clients that always ask for the same number; or is refused (false)."""
    schema_seconds: PositiveFloat = 5.0
    """Computing time that a JSON schema of a request (`response_format`, a forced call) may take."""
    schema_memory_mb: PositiveInt = 512
    """MiB that it may take; on Linux."""
    max_loaded_models: int = Field(default=2, ge=1)
    """How many of `models` may be in memory at once, in addition to the base: for one more, that which was
    not asked for longest is unloaded, never one that is answering."""
    sampling: SamplingDefaults = SamplingDefaults()
    """Sampling where a request does not set it."""
