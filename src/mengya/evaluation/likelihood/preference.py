"""Preference accuracy: how often a model gives the chosen completion of a pair the higher likelihood.

Takes encoded pairs: ids and loss mask of both sides, as shards of kind `preference` hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from torch import Tensor, nn, tensor

from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.evaluation.likelihood.scoring import sequence_nlls
from mengya.measured.intervals import wilson

Ids = Sequence[int] | np.ndarray
Side = tuple[Ids, Ids]  # ids, and a loss mask of the same length
GROUP_PAIRS = 128


@dataclass(frozen=True)
class PreferenceAccuracy:
    """accuracy compares the mean log-probability per token, accuracy_by_sum that of the full
    completion (which favours the shorter one); interval is Wilson's at 95 % around accuracy.
    margin: mean difference of the means, nats per token. A tie counts as wrong."""

    accuracy: float
    interval: tuple[float, float]
    accuracy_by_sum: float
    margin: float
    pairs: int


def preference_accuracy(
    model: nn.Module,
    pairs: Iterable[tuple[Side, Side]],
    note: Callable[[bool], None] = lambda chosen_wins: None,
) -> PreferenceAccuracy:
    """Measure `model` on (chosen, rejected) pairs, on its device and in its dtype.

    Both sides are cut on the right to the model's context. A pair with a side without a token to score
    is skipped.

    Args:
        note: called for each pair that was scored, with whether the chosen side won.

    Raises:
        UserError: when no pair can be scored.
    """
    longest = int(getattr(model, "config").context_length) + 1  # noqa: B009
    count = wins = wins_by_sum = 0
    margin = 0.0
    remaining = iter(pairs)
    while group := list(islice(remaining, GROUP_PAIRS)):
        sides = [side for pair in group for side in pair]
        nlls = sequence_nlls(model, [[int(i) for i in ids[:longest]] for ids, _ in sides])
        scores = [_scores(nll, mask) for nll, (_, mask) in zip(nlls, sides, strict=True)]
        for chosen, rejected in zip(scores[0::2], scores[1::2], strict=True):
            if chosen is None or rejected is None:
                continue
            count += 1
            wins_by_sum += chosen[0] > rejected[0]
            wins += chosen[1] > rejected[1]
            note(chosen[1] > rejected[1])
            margin += chosen[1] - rejected[1]
    if count == 0:
        raise UserError(
            "no preference pair to score: every pair has a side without a completion inside the context"
        )
    return PreferenceAccuracy(
        accuracy=wins / count,
        interval=wilson(wins, count),
        accuracy_by_sum=wins_by_sum / count,
        margin=margin / count,
        pairs=count,
    )


def pairs_of_shards(shards: TokenShards) -> Iterator[tuple[Side, Side]]:
    """The pairs of a preference shard folder, in its order.

    Raises:
        UserError: when the shards are of another kind.
    """
    if shards.kind != "preference":
        raise UserError(
            f"{shards.directory} holds {shards.kind} shards; preference accuracy takes a folder "
            "that `mengya prepare kind=preference` wrote"
        )
    for chosen in range(0, len(shards), 2):
        first, second = (
            (shards.tokens(i).tolist(), shards.loss_mask(i).tolist()) for i in (chosen, chosen + 1)
        )
        yield first, second


def _scores(nll: Tensor, mask: Ids) -> tuple[float, float] | None:
    """Sum and mean log-probability of the tokens with mask 1 (the first token is never predicted)."""
    scored = nll[tensor(mask[1 : len(nll) + 1]).bool()].double()
    return (-scored.sum().item(), -scored.mean().item()) if len(scored) else None
