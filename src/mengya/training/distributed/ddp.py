"""PyTorch's DistributedDataParallel: every rank holds the full model and trains on its own rows."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from mengya.models.causal_lm import CausalLM
from mengya.training.distributed.process_group import ProcessGroupStrategy

# Buffers are each rank's own (load of experts) or moved alike on all (biases of routers): the forward
# pass must not copy those of rank 0. torch 2.13 renamed the argument.
_OWN_BUFFERS: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)


class DDP(ProcessGroupStrategy):
    """Gradients are summed over the ranks while the backward pass runs.

    A compiled model stays inside the wrapper: dynamo cuts its graph where a bucket of gradients is
    full, so that the exchange overlaps with the rest of the backward pass.
    """

    def wrap(self, model: CausalLM, optimizers: Sequence[Optimizer]) -> nn.Module:
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            model, device_ids=ids, gradient_as_bucket_view=True, **_OWN_BUFFERS
        )

    def accumulate(self, model: nn.Module, last: bool) -> AbstractContextManager[object]:
        assert isinstance(model, DistributedDataParallel)
        return nullcontext() if last else model.no_sync()
