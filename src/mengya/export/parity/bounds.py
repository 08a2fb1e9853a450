"""How far the answers of another program may be from ours.

Each format and type gives its own `Bounds`, from errors that were measured (docs/export.md); a researcher
may loosen one explicitly, and parity.json says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from mengya.config import Config


@dataclass(frozen=True)
class Bounds:
    """None: the format does not hold what is asked (a bare weight file has no chat template).

    Attributes:
        token_ids: of the hostile texts, how many may have other ids.
        prompt_ids: of the conversations' prompts, how many may have other ids.
        prompts: of the conversations, how many may be rendered otherwise.
        stop_tokens: tokens that end an answer here and not there, or there only (control tokens apart).
        logit_error_mean, logit_error_max: relative error of the logits of a position, mean and worst.
        written_error: mean relative error of the logits from those of our own engine with the numbers that
            were written; faults show here that the error of rounding would hide. None: nothing was rounded.
        nats_rise: nats per token that held-out text may cost more.
        greedy_agreement: fraction of positions at least, where the likeliest token is the same.
    """

    logit_error_mean: float | None
    logit_error_max: float | None
    nats_rise: float | None
    greedy_agreement: float | None
    written_error: float | None = None
    token_ids: int | None = 0
    prompt_ids: int | None = 0
    prompts: int | None = 0
    stop_tokens: int | None = 0

    def loosened(self, by: BoundsOverride) -> Bounds:
        """These bounds with every one that `by` sets in its place."""
        return replace(self, **by.given())

    def for_experts(self) -> Bounds:
        """Of a mixture: a rounded router may send a token to another expert, at a few positions."""
        mean = None if self.logit_error_mean is None else 2 * self.logit_error_mean
        worst = None if self.logit_error_max is None else max(2.0, self.logit_error_max)
        written = None if self.written_error is None else 2 * self.written_error
        return replace(self, logit_error_mean=mean, logit_error_max=worst, written_error=written)


# Of weights that are stored in these types. Of the demo's model were measured: bfloat16 0.003 mean and
# 0.01 worst, Q8_0 0.007 and 0.03, 4 bits 0.06 (GPTQ) to 0.11 (to nearest) and 0.5, 3 bits 0.13 to 0.22,
# 2 bits 0.33 to 0.54 and 1.7; a model of few steps is rounded worse. Rows of q and k in a wrong order: 0.16.
_WRITTEN = 0.03  # llama.cpp multiplies with activations in 8 bits
EXACT = Bounds(1e-3, 1e-2, 1e-3, 0.99)
FLOAT16 = Bounds(5e-3, 0.05, 2e-3, 0.97, _WRITTEN)
BFLOAT16 = Bounds(0.03, 0.15, 0.01, 0.93, _WRITTEN)
INT8 = Bounds(0.05, 0.3, 0.01, 0.9, _WRITTEN)
INT4 = Bounds(0.5, 2.0, 0.1, 0.4, _WRITTEN)
INT3 = Bounds(0.8, 3.0, 0.2, 0.25, _WRITTEN)
INT2 = Bounds(1.5, 5.0, 1.0, 0.1, _WRITTEN)


def quantized_bounds(bits: float, rounded_activations: bool = False) -> Bounds:
    """Of `mengya quantize`: the mean bits of a weight; whether activations are rounded to 8, too."""
    bounds = INT2 if bits < 2.5 else INT3 if bits < 3.5 else INT4 if bits < 6 else INT8
    if not rounded_activations:
        return bounds
    return replace(
        bounds, logit_error_mean=max(bounds.logit_error_mean or 0, 0.15), logit_error_max=None
    )


def trained_bounds(save_dtype: str, ternary: bool) -> Bounds:
    """Of weights that were trained rounded: what is written is what was trained.

    Inputs of ternary weights are rounded, too: one on the edge of two codes may fall to either.
    """
    bounds = {"float32": EXACT, "bfloat16": BFLOAT16, "float16": FLOAT16}[save_dtype]
    if not ternary:
        return bounds
    return replace(
        bounds, logit_error_mean=0.05, logit_error_max=None, nats_rise=0.005, greedy_agreement=0.95
    )


class BoundsOverride(Config):
    """Bounds in place of the format's own; null keeps that one. What is set is recorded in parity.json."""

    token_ids: int | None = Field(default=None, ge=0)
    """Texts of the 200 that may have other token ids."""
    prompt_ids: int | None = Field(default=None, ge=0)
    """Prompts of the ten conversations that may have other token ids."""
    prompts: int | None = Field(default=None, ge=0)
    """Conversations of the ten that may be rendered otherwise."""
    stop_tokens: int | None = Field(default=None, ge=0)
    """Stop tokens that may be missing or added."""
    logit_error_mean: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Mean relative error of the logits of a position."""
    logit_error_max: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Relative error of the logits of the worst position."""
    written_error: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Mean relative error of the logits, compared with our own engine with the numbers that were written."""
    nats_rise: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Nats per token that held-out text may cost more than before."""
    greedy_agreement: float | None = Field(default=None, ge=0, le=1)
    """Fraction of positions at least, where the likeliest token is the same."""

    def given(self) -> dict[str, Any]:
        """The bounds that are set."""
        return self.model_dump(exclude_none=True)
