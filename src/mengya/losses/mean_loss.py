"""The mean of a loss over a finite set of batches: validation in training and in evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from mengya.batch import Batch
from mengya.losses.token_nll import Loss, Model


@torch.no_grad()
def sum_loss(
    model: Model,
    loss: Loss,
    batches: Iterable[Batch],
    device: torch.device,
    total: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> tuple[dict[str, float], int]:
    """Sum the loss and its metrics over `batches`.

    Args:
        total: adds a fp64 vector over all ranks; the identity in a single process.

    Returns:
        The sums by name, and the number of items they are sums over. The model's mode is the
        caller's to set.
    """
    sums: dict[str, Tensor] = {}
    items = 0
    for batch in batches:
        items += loss.items(batch)
        result = loss(model, batch.to(device))
        for name, value in {"loss": result.loss, **result.metrics}.items():
            sums[name] = sums.get(name, 0) + value.double()
    vector = torch.stack(
        [torch.tensor(items, dtype=torch.float64), *(v.cpu() for v in sums.values())]
    )
    vector = total(vector)
    return dict(zip(sums, vector[1:].tolist(), strict=True)), int(vector[0])
