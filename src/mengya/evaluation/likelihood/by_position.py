"""Loss by position in the text: whether a long context helps, and where it fails.

Takes a model and id lists; gives nats per token for bins of positions. exp of it is perplexity.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from mengya.errors import UserError
from mengya.evaluation.likelihood.scoring import sequence_nlls

BINS = 16
MAX_DOCUMENTS = 64


@dataclass(frozen=True)
class ByPosition:
    """nats[i]: mean nats per token of the predictions at positions [i * width, (i + 1) * width).

    width is in tokens; every bin is the mean over the same `documents` documents.
    """

    width: int
    nats: list[float]
    documents: int


def nats_by_position(model: nn.Module, documents: Iterable[list[int]], length: int) -> ByPosition:
    """Loss over the first `length` predictions of the first MAX_DOCUMENTS documents that are long enough.

    Every bin covers the same documents, so that differences between texts do not distort the curve.
    Reads no further than the last document that it uses.

    Raises:
        UserError: no document has so many tokens, or `length` is less than BINS.
    """
    if length < BINS:
        raise UserError(f"positions={length} must be at least {BINS}, the number of bins")
    width = length // BINS
    wanted = width * BINS + 1
    chosen: list[list[int]] = []
    longest = 0
    for ids in documents:
        longest = max(longest, len(ids))
        if len(ids) >= wanted:
            chosen.append(ids[:wanted])
        if len(chosen) == MAX_DOCUMENTS:
            break
    if not chosen:
        raise UserError(
            f"no document has {wanted} tokens (the longest has {longest}); give longer texts or "
            "write a smaller positions="
        )
    nlls_NS = torch.stack(sequence_nlls(model, chosen)).double()
    return ByPosition(width, nlls_NS.mean(0).view(BINS, width).mean(1).tolist(), len(chosen))
