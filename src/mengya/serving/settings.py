"""What the owner of a server decides about its API; the key alone comes from the environment."""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from mengya.config import Config
from mengya.generation.sampling import SamplingParams


class SamplingDefaults(Config):
    """Sampling where a request says nothing."""

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


class ServerSettings(Config):
    """Limits and manners of the HTTP side."""

    cors_origins: list[str] = []
    """Web pages of these origins may call the API from a browser, such as [http://localhost:3000];
    ["*"] any. None: only the page that the server itself shows."""
    max_body_mb: PositiveFloat = 4.0
    """Larger requests are refused (413)."""
    drain_seconds: float = Field(default=30.0, ge=0)
    """After SIGTERM or Ctrl-C: how long running requests may go on before they are ended."""
    page: bool = True
    """Show the chat page at /."""
    sampling: SamplingDefaults = SamplingDefaults()
    """Sampling where a request says nothing."""
