"""How well a model predicts, by position in the text: whether a long context helps, and where it ends.

Takes a model and id lists; gives nats per token in stretches of positions. exp of it is perplexity.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from mengya.errors import UserError
from mengya.evaluation.scoring import sequence_nlls

STRETCHES = 16
MOST_DOCUMENTS = 64


@dataclass(frozen=True)
class ByPosition:
    """nats[i]: mean nats per token of the predictions at positions [i * width, (i + 1) * width)."""

    width: int
    nats: list[float]
    documents: int


def nats_by_position(model: nn.Module, documents: Iterable[list[int]], length: int) -> ByPosition:
    """The first `length` predictions of the first MOST_DOCUMENTS documents that are long enough.

    Every stretch is of the same documents, so their texts' difficulty does not mix into the curve.

    Raises:
        UserError: no document has so many tokens, or `length` is less than STRETCHES.
    """
    if length < STRETCHES:
        raise UserError(f"{length} positions cannot be parted into {STRETCHES}; ask for more")
    width = length // STRETCHES
    wanted = width * STRETCHES + 1
    chosen: list[list[int]] = []
    longest = 0
    for ids in documents:
        longest = max(longest, len(ids))
        if len(ids) >= wanted:
            chosen.append(ids[:wanted])
        if len(chosen) == MOST_DOCUMENTS:
            break
    if not chosen:
        raise UserError(
            f"no document has {wanted} tokens (the longest has {longest}); give longer texts or "
            "measure fewer positions"
        )
    nlls_NS = torch.stack(sequence_nlls(model, chosen)).double()
    return ByPosition(width, nlls_NS.mean(0).view(STRETCHES, width).mean(1).tolist(), len(chosen))
