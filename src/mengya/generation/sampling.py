"""From the logits of the next token to a choice: greedy, or drawn after penalty, temperature, top-k, top-p.

The order and the meaning of each step are those of transformers' generate().
Shapes: B rows, V vocabulary, R ranked candidates (R <= V).
"""

from __future__ import annotations

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from mengya.config import Config


class SamplingParams(Config):
    """How completions are drawn."""

    max_new_tokens: PositiveInt = 256
    """Longest completion in tokens; the model's context may end it earlier."""
    temperature: float = Field(default=0.8, ge=0)
    """Logits are divided by it: 0 always takes the likeliest token, above 1 flattens."""
    top_k: int = Field(default=0, ge=0)
    """Draw among the k likeliest tokens only; 0 takes all."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Draw among the fewest tokens whose probabilities reach this sum; 1 takes all."""
    repetition_penalty: PositiveFloat = 1.0
    """Above 1 makes tokens of the prompt and the completion less likely to come again; 1 is none."""
    seed: int | None = None
    """Makes a run repeatable; null draws anew each time."""


def penalize(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Divide positive and multiply negative logits of seen tokens (Keskar et al. 2019, arXiv:1909.05858)."""
    lowered = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return torch.where(seen_BV, lowered, logits_BV)


def candidates(logits_BV: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Probabilities and ids of what may be drawn, likeliest first: ([B, R] fp32, [B, R] int64).

    Needs temperature > 0. Candidates outside top-p have probability 0.
    """
    scaled = logits_BV.float() / params.temperature
    V = scaled.shape[-1]
    if 0 < params.top_k < V:
        ranked_BR, ids_BR = scaled.topk(params.top_k, dim=-1)
    elif params.top_p < 1:
        ranked_BR, ids_BR = scaled.sort(dim=-1, descending=True)
    else:
        ids_BR = torch.arange(V, device=scaled.device).expand_as(scaled)
        return scaled.softmax(-1), ids_BR
    probabilities_BR = ranked_BR.softmax(-1)
    if params.top_p < 1:
        # Dropped once those before it reach top_p, so the likeliest always stays.
        before_BR = probabilities_BR.cumsum(-1) - probabilities_BR
        probabilities_BR = probabilities_BR.masked_fill(before_BR >= params.top_p, 0.0)
        probabilities_BR = probabilities_BR / probabilities_BR.sum(-1, keepdim=True)
    return probabilities_BR, ids_BR


def choose(
    logits_BV: Tensor,
    seen_BV: Tensor | None,
    params: SamplingParams,
    generator: torch.Generator | None,
) -> Tensor:
    """The next token of every row, [B] int64.

    Args:
        logits_BV: [B, V] any float dtype.
        seen_BV: [B, V] bool, tokens under the repetition penalty; None when it is 1.
        generator: on the device of the logits; unused when greedy.
    """
    logits_BV = logits_BV.float()
    if seen_BV is not None:
        logits_BV = penalize(logits_BV, seen_BV, params.repetition_penalty)
    if params.temperature == 0:
        return logits_BV.argmax(-1)
    probabilities_BR, ids_BR = candidates(logits_BV, params)
    drawn_B1 = torch.multinomial(probabilities_BR, 1, generator=generator)
    return ids_BR.gather(-1, drawn_B1)[:, 0]


def new_generator(seed: int | None, device: torch.device) -> torch.Generator:
    """A generator of its own, so that drawing samples never moves the training's random state."""
    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator
