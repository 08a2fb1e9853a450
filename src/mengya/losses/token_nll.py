"""Negative log-likelihood of the labels, per token, and the interface that every loss shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.batch import IGNORE_INDEX, Batch


class ModelOutput(Protocol):
    """What a loss needs of a model's output.

    head_output: logits [B, S, V], or what the head gave that the loss passed to the model. aux_loss_B:
    [B] fp32, the load-balancing loss of each row times its coefficient, or None without experts.
    """

    @property
    def head_output(self) -> Tensor: ...
    @property
    def aux_loss_B(self) -> Tensor | None: ...


Model = Callable[..., ModelOutput]


class LossSums(NamedTuple):
    """Sums over the items of one micro-batch; dividing by the global number of items is the loop's job.

    loss: scalar, differentiable. metrics: scalars without gradient, summed over items as well.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


class Loss(Protocol):
    """A training method: how many items a micro-batch has, and the loss summed over them."""

    def items(self, batch: Batch) -> int:
        """The number of items that the loss is a mean of; read on the host, before the transfer."""
        ...

    def __call__(self, model: Model, batch: Batch) -> LossSums: ...


def token_nll(logits_BSV: Tensor, labels_BS: Tensor) -> Tensor:
    """-log p(label) in nats, [B, S] fp32; 0 where the label is IGNORE_INDEX."""
    B, S, V = logits_BSV.shape
    nll_T = F.cross_entropy(
        logits_BSV.reshape(B * S, V).float(),
        labels_BS.reshape(B * S),
        ignore_index=IGNORE_INDEX,
        reduction="none",
    )
    return nll_T.view(B, S)


def log_partition(logits_BSV: Tensor, labels_BS: Tensor) -> Tensor:
    """log sum_v exp(logit_v), [B, S] fp32; 0 where the label is IGNORE_INDEX."""
    return torch.where(labels_BS != IGNORE_INDEX, logits_BSV.float().logsumexp(-1), 0.0)


def balance_sum(output: ModelOutput, items_B: Tensor) -> Tensor | None:
    """The auxiliary loss of each row weighted by the row's items, so that the mean over all items
    is the same however the rows are split into micro-batches and ranks."""
    return None if output.aux_loss_B is None else (output.aux_loss_B * items_B).sum()
