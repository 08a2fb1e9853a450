"""From the logits of the next token to a choice: biased and penalized, then greedy or drawn.

The order and the meaning of each step are those of transformers' generate(); the two penalties by
count, which it lacks, are those of OpenAI's API and come after its own.
Every row has settings of its own, and all are chosen by the same few operations over the batch.
Random numbers are pure functions of a seed and of how many were drawn before.
Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from mengya.config import Config
from mengya.errors import UserError
from mengya.runtime.device import to_device
from mengya.runtime.hashing import GOLDEN_GAMMA, mix64


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
    """Makes a run repeatable; null draws another seed each time."""


_COLUMNS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty",
            "frequency_penalty")  # fmt: skip


def setting_columns(params: SamplingParams) -> tuple[float, ...]:
    """One row of `RowSettings.columns_B7`."""
    return tuple(float(getattr(params, name)) for name in _COLUMNS)


@dataclass(frozen=True, slots=True)
class RowSettings:
    """How each row of a batch is drawn.

    Attributes:
        columns_B7: [B, 7] float32 on the host, `setting_columns` of each row.
        biases: `logit_bias` of the rows that have one, by their number.
    """

    columns_B7: np.ndarray
    biases: dict[int, dict[int, float]]

    @classmethod
    def of(cls, rows: Sequence[SamplingParams]) -> RowSettings:
        columns = np.array([setting_columns(params) for params in rows], dtype=np.float32)
        return cls(columns, {i: p.logit_bias for i, p in enumerate(rows) if p.logit_bias})

    def of_rows(self, numbers: np.ndarray) -> np.ndarray:
        """Columns of some rows, [7, rows, 1], ready to broadcast over their logits."""
        return np.ascontiguousarray(self.columns_B7[numbers].T[:, :, None])

    @property
    def penalized(self) -> bool:
        """Whether the choice of any row depends on which tokens came before."""
        return bool((self.columns_B7[:, 4:] != (1, 0, 0)).any())


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
    def empty(cls, rows: int, vocab_size: int, device: torch.device) -> History:
        seen_BV = torch.zeros(rows, vocab_size, dtype=torch.bool, device=device)
        return cls(seen_BV, torch.zeros_like(seen_BV, dtype=torch.float32))

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], vocab_size: int, device: torch.device) -> History:
        """Nothing but the prompts yet."""
        history = cls.empty(len(prompts), vocab_size, device)
        for row, prompt in enumerate(prompts):
            history.restart(row, prompt, ())
        return history

    def restart(self, row: int, prompt: Sequence[int], completion: Sequence[int]) -> None:
        """Give the row to another text."""
        device = self.seen_BV.device
        counts = np.bincount(completion or [0], minlength=self.seen_BV.shape[1])
        counts[0] -= not completion
        seen = counts > 0
        seen[list(prompt)] = True
        self.seen_BV[row] = to_device(seen, device)
        self.counts_BV[row] = to_device(counts.astype(np.float32), device)

    def rows(self, rows_R: Tensor) -> History:
        """A copy of some rows."""
        return History(self.seen_BV[rows_R], self.counts_BV[rows_R])

    def add(self, chosen_R: Tensor, rows_R: Tensor | None = None) -> None:
        """Count one more token of each of these rows; None: of all."""
        if rows_R is None:
            rows_R = torch.arange(len(chosen_R), device=chosen_R.device)
        self.seen_BV[rows_R, chosen_R] = True
        self.counts_BV[rows_R, chosen_R] += 1


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


def adjust(logits_BV: Tensor, history: History | None, rows: RowSettings) -> Tensor:
    """Logits with bias and penalties: fp32 where there is any, else the logits as they are.

    Bias, then the repetition penalty (Keskar et al. 2019, arXiv:1909.05858: positive logits are
    divided by it, negative ones multiplied), then logit - count * frequency_penalty
    - (count > 0) * presence_penalty (platform.openai.com/docs, "Frequency and presence penalties").
    Rows without penalties pass through bit for bit, whatever the other rows have.

    Args:
        history: None only where `rows.penalized` is false.
    """
    device = logits_BV.device
    if any(rows.biases.values()):
        triples = [(row, id_, by) for row, one in rows.biases.items() for id_, by in one.items()]
        where = to_device(np.array([t[:2] for t in triples]).T.copy(), device)
        added = to_device(np.array([t[2] for t in triples], dtype=np.float32), device)
        logits_BV = logits_BV.float().index_put((where[0], where[1]), added, accumulate=True)
    if not rows.penalized:
        return logits_BV
    assert history is not None
    logits_BV = logits_BV.float()
    columns = to_device(np.ascontiguousarray(rows.columns_B7[:, 4:].T[:, :, None]), device)
    repetition_B1, presence_B1, frequency_B1 = columns
    lowered = torch.where(logits_BV > 0, logits_BV / repetition_B1, logits_BV * repetition_B1)
    logits_BV = torch.where(history.seen_BV, lowered, logits_BV)
    logits_BV = logits_BV - frequency_B1 * history.counts_BV
    return logits_BV - presence_B1 * (history.counts_BV > 0)


def candidates(
    logits_BV: Tensor, columns_7B1: Tensor, ranked: bool
) -> tuple[Tensor, Tensor | None]:
    """Probabilities of what may be drawn, [B, V] fp32, and the ids in their order, [B, V].

    Needs temperature > 0. Candidates outside top-k, top-p and min-p (Nguyen et al. 2024,
    arXiv:2407.01082) have probability 0.

    Args:
        ranked: likeliest first, as top-k and top-p need it; else by id, and None for the ids.
    """
    temperature_B1, top_k_B1, top_p_B1, min_p_B1 = columns_7B1[:4]
    # From the greatest down, so that a tiny temperature gives -inf but never inf - inf.
    logits_BV = logits_BV.float()
    scaled = (logits_BV - logits_BV.amax(-1, keepdim=True)) / temperature_B1.clamp(min=1e-9)
    ids_BV = None
    if ranked:
        # Stable: which of two equal logits comes first must not depend on the rest of the batch.
        scaled, ids_BV = scaled.sort(dim=-1, descending=True, stable=True)
        place_V = torch.arange(scaled.shape[-1], device=scaled.device)
        beyond_BV = (place_V >= top_k_B1) & (top_k_B1 > 0)
        probabilities_BV = scaled.masked_fill(beyond_BV, float("-inf")).softmax(-1)
        # Dropped once those before it reach top_p, so the likeliest always stays.
        before_BV = probabilities_BV.cumsum(-1) - probabilities_BV
        outside_BV = (before_BV >= top_p_B1) & (top_p_B1 < 1)
        probabilities_BV = probabilities_BV.masked_fill(outside_BV, 0.0)
    else:
        probabilities_BV = scaled.softmax(-1)
    least_B1 = min_p_B1 * probabilities_BV.amax(-1, keepdim=True)
    probabilities_BV = probabilities_BV.masked_fill(probabilities_BV < least_B1, 0.0)
    return probabilities_BV / probabilities_BV.sum(-1, keepdim=True), ids_BV


def choose(
    logits_BV: Tensor, history: History | None, rows: RowSettings, uniform_B: np.ndarray
) -> Tensor:
    """The next token of every row, [B] int64. A row's choice depends on nothing of other rows.

    Args:
        logits_BV: [B, V] any float dtype.
        history: None only where `rows.penalized` is false.
        uniform_B: float32 in [0, 1), one a row (`uniforms`); greedy rows do not look at it.
    """
    logits_BV = adjust(logits_BV, history, rows)
    temperature_B, top_k_B, top_p_B = rows.columns_B7.T[:3]
    drawn_B = temperature_B > 0
    if not drawn_B.any():
        return logits_BV.argmax(-1)
    ranked_B = (top_k_B > 0) & (top_k_B < logits_BV.shape[-1]) | (top_p_B < 1)
    kinds = ((~drawn_B, None), (drawn_B & ranked_B, True), (drawn_B & ~ranked_B, False))
    device = logits_BV.device
    chosen_B = torch.empty(len(logits_BV), dtype=torch.int64, device=device)
    for members_B, ranked in kinds:
        (numbers,) = np.nonzero(members_B)
        if not len(numbers):
            continue
        at = None if len(numbers) == len(logits_BV) else to_device(numbers, device)
        some = logits_BV if at is None else logits_BV[at]
        if ranked is None:
            chosen = some.argmax(-1)
        else:
            # One copy to the device instead of two.
            uniform_1B1 = uniform_B[None, numbers, None]
            columns = to_device(np.concatenate((rows.of_rows(numbers), uniform_1B1)), device)
            probabilities, ids = candidates(some, columns[:-1], ranked)
            chosen = _draw(probabilities, ids, columns[-1])
        if at is None:
            return chosen
        chosen_B[at] = chosen
    return chosen_B


def _draw(probabilities_BV: Tensor, ids_BV: Tensor | None, uniform_B1: Tensor) -> Tensor:
    # The first candidate at which the sum passes u * total, in [0, total): never one of no probability.
    sums_BV = probabilities_BV.cumsum(-1)
    total_B1 = sums_BV[:, -1:].contiguous()
    below_B1 = total_B1.nextafter(torch.zeros_like(total_B1))
    wanted_B1 = torch.minimum(uniform_B1 * total_B1, below_B1)
    drawn_B1 = torch.searchsorted(sums_BV, wanted_B1, right=True)
    return (drawn_B1 if ids_BV is None else ids_BV.gather(-1, drawn_B1))[:, 0]


def row_seed(seed: int | None) -> int:
    """A seed of 64 bits; None draws it from the operating system, leaving training's random state alone."""
    return int.from_bytes(os.urandom(8), "little") if seed is None else seed % 2**64


def uniforms(seeds_B: np.ndarray, steps_B: np.ndarray) -> np.ndarray:
    """One number in [0, 1) for each row, a pure function of its seed and of how many it drew before.

    So no state is kept: an interrupted completion resumes with the same numbers. SplitMix64
    (Steele et al. 2014, "Fast splittable pseudorandom number generators"), entered at any step.

    Args:
        seeds_B: uint64.
        steps_B: int, from 0.

    Returns:
        [B] float32 of 24 random bits.
    """
    with np.errstate(over="ignore"):
        streams_B = mix64(seeds_B.astype(np.uint64) + GOLDEN_GAMMA)
        bits_B = mix64(streams_B + (steps_B.astype(np.uint64) + np.uint64(1)) * GOLDEN_GAMMA)
    return (bits_B >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
