"""From the logits of the next token to a choice: biased and penalized, then greedy or drawn.

The order and the meaning of each step are those of transformers' generate(); the two penalties by
count, which it lacks, are those of OpenAI's API and come after its own.
Shapes: B rows, V vocabulary, R ranked candidates (R <= V).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from mengya.config import Config, UserError


class SamplingParams(Config):
    """How completions are drawn."""

    max_new_tokens: PositiveInt = 256
    """Longest completion in tokens; the model's context may end it earlier."""
    temperature: float = Field(default=0.8, ge=0, allow_inf_nan=False)
    """Logits are divided by it: 0 always takes the likeliest token, above 1 flattens."""
    top_k: int = Field(default=0, ge=0)
    """Draw among the k likeliest tokens only; 0 takes all."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Draw among the fewest tokens whose probabilities reach this sum; 1 takes all."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Draw among tokens at least this many times as likely as the likeliest; 0 takes all."""
    repetition_penalty: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Above 1 makes tokens of the prompt and the completion less likely to come again; 1 is none."""
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    """Taken off the logit of each token that the completion holds already; 0 is none."""
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    """Taken off a token's logit once for each time that the completion holds it; 0 is none."""
    logit_bias: dict[NonNegativeInt, FiniteFloat] = {}
    """Added to the logits of these token ids: -100 all but bans a token, 100 all but forces it."""
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**64)
    """Makes a run repeatable; null draws anew each time."""

    @property
    def needs_history(self) -> bool:
        """Whether a choice depends on which tokens came before."""
        penalties = (self.presence_penalty, self.frequency_penalty)
        return self.repetition_penalty != 1 or penalties != (0, 0)


@dataclass(slots=True)
class History:
    """What the penalties look at.

    Attributes:
        seen_BV: bool, tokens of the prompt and the completion.
        counts_BV: float32, how often the completion holds each token.
    """

    seen_BV: Tensor
    counts_BV: Tensor

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], vocab_size: int, device: torch.device) -> History:
        """Nothing but the prompts yet."""
        seen_BV = torch.zeros(len(prompts), vocab_size, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            seen_BV[row, list(prompt)] = True
        seen_BV = seen_BV.to(device)
        return cls(seen_BV, torch.zeros_like(seen_BV, dtype=torch.float32))

    @classmethod
    def together(cls, rows: Iterable[History]) -> History:
        """A copy with the rows of all."""
        rows = list(rows)
        return cls(
            torch.cat([row.seen_BV for row in rows]), torch.cat([row.counts_BV for row in rows])
        )

    def add(self, chosen_B: Tensor) -> None:
        """Count one more token of each row."""
        self.seen_BV.scatter_(1, chosen_B[:, None], True)
        self.counts_BV.scatter_add_(1, chosen_B[:, None], self.counts_BV.new_ones(len(chosen_B), 1))


def check_logit_bias(params: SamplingParams, vocab_size: int) -> None:
    """
    Raises:
        UserError: `logit_bias` names a token that the model does not have.
    """
    if (highest := max(params.logit_bias, default=-1)) >= vocab_size:
        raise UserError(
            f"logit_bias names token {highest}, the model has tokens 0 to {vocab_size - 1}; "
            "take it out"
        )


def adjust(logits_BV: Tensor, history: History | None, params: SamplingParams) -> Tensor:
    """Logits with bias and penalties, [B, V] fp32.

    Bias, then the repetition penalty (Keskar et al. 2019, arXiv:1909.05858: positive logits are
    divided by it, negative ones multiplied), then logit - count * frequency_penalty
    - (count > 0) * presence_penalty (platform.openai.com/docs, "Frequency and presence penalties").

    Args:
        history: None only where `params.needs_history` is false.
    """
    logits_BV = logits_BV.float()
    if params.logit_bias:
        ids = torch.tensor(list(params.logit_bias), device=logits_BV.device)
        bias = torch.tensor(list(params.logit_bias.values()), device=logits_BV.device)
        logits_BV = logits_BV.index_add(1, ids, bias.expand(len(logits_BV), -1))
    if not params.needs_history:
        return logits_BV
    assert history is not None
    penalty = params.repetition_penalty
    if penalty != 1:
        lowered = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
        logits_BV = torch.where(history.seen_BV, lowered, logits_BV)
    if params.frequency_penalty:
        logits_BV = logits_BV - params.frequency_penalty * history.counts_BV
    if params.presence_penalty:
        logits_BV = logits_BV - params.presence_penalty * (history.counts_BV > 0)
    return logits_BV


def candidates(logits_BV: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Probabilities and ids of what may be drawn: ([B, R] fp32, [B, R] int64).

    Needs temperature > 0. Candidates outside top-p and min-p (Nguyen et al. 2024, arXiv:2407.01082)
    have probability 0. Likeliest first where top-k or top-p has ranked them, else by id.
    """
    # From the greatest down, so that a tiny temperature gives -inf but never inf - inf.
    logits_BV = logits_BV.float()
    scaled = (logits_BV - logits_BV.amax(-1, keepdim=True)) / max(params.temperature, 1e-9)
    V = scaled.shape[-1]
    if 0 < params.top_k < V:
        scaled, ids_BR = scaled.topk(params.top_k, dim=-1)
    elif params.top_p < 1:
        scaled, ids_BR = scaled.sort(dim=-1, descending=True)
    else:
        ids_BR = torch.arange(V, device=scaled.device).expand_as(scaled)
    probabilities_BR = scaled.softmax(-1)
    if params.top_p < 1:
        # Dropped once those before it reach top_p, so the likeliest always stays.
        before_BR = probabilities_BR.cumsum(-1) - probabilities_BR
        probabilities_BR = probabilities_BR.masked_fill(before_BR >= params.top_p, 0.0)
    if params.min_p > 0:
        least_B1 = params.min_p * probabilities_BR.amax(-1, keepdim=True)
        probabilities_BR = probabilities_BR.masked_fill(probabilities_BR < least_B1, 0.0)
    return probabilities_BR / probabilities_BR.sum(-1, keepdim=True), ids_BR


def choose(
    logits_BV: Tensor,
    history: History | None,
    params: SamplingParams,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """The next token of every row, [B] int64. A row's choice depends on nothing of other rows.

    Args:
        logits_BV: [B, V] any float dtype.
        history: None only where `params.needs_history` is false.
        generators: one a row, on the CPU; the same one may stand for several. Each gives one number
            for each choice. Unused when greedy.
    """
    logits_BV = adjust(logits_BV, history, params)
    if params.temperature == 0:
        return logits_BV.argmax(-1)
    probabilities_BR, ids_BR = candidates(logits_BV, params)
    uniform_B1 = torch.stack([torch.rand(1, generator=generator) for generator in generators])
    # The first candidate at which the sum passes u * total, in [0, total): never one of no probability.
    sums_BR = probabilities_BR.cumsum(-1)
    total_B1 = sums_BR[:, -1:].contiguous()
    below_B1 = total_B1.nextafter(torch.zeros_like(total_B1))
    wanted_B1 = torch.minimum(uniform_B1.to(total_B1.device) * total_B1, below_B1)
    drawn_B1 = torch.searchsorted(sums_BR, wanted_B1, right=True)
    return ids_BR.gather(-1, drawn_B1)[:, 0]


def new_generator(seed: int | None) -> torch.Generator:
    """A generator of its own, so that drawing samples never moves the training's random state.

    On the CPU whatever the model's device: the same seed then draws the same numbers everywhere.
    """
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator
