"""How to draw from an exported model: written into generation_config.json, Modelfile and model card."""

from __future__ import annotations

from pydantic import Field

from mengya.config import Config


class SamplingAdvice(Config):
    """Settings that other programs start with; the defaults are those of `mengya chat`."""

    temperature: float = Field(default=0.8, ge=0, allow_inf_nan=False)
    """0 always takes the likeliest token, above 1 flattens."""
    top_k: int = Field(default=0, ge=0)
    """Draw among the k likeliest tokens only; 0 takes all."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Draw among the fewest tokens whose probabilities reach this sum; 1 takes all."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Draw among tokens at least this many times as likely as the likeliest; 0 takes all."""
    repetition_penalty: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Above 1 makes tokens less likely to come again; 1 is none."""
