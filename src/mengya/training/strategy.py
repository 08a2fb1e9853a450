"""How a step runs over devices: one device, or PyTorch's DistributedDataParallel under torchrun.

The loop asks four things: accumulate, backward, step, sum. It has no `if distributed`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

# Buffers are each rank's own (load of experts) or moved alike on all (biases of routers): the forward
# pass must not copy those of rank 0. torch 2.13 renamed the word for it.
_OWN_BUFFERS: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)


class SingleDevice:
    """One process, one device; also the base that DDP changes where it must.

    Attributes:
        device: where model and batches live. rank, world_size: 0 and 1 here.
        replicas: the processes that hold the same parameters and gradients, or None.
        autocast_dtype: dtype of matrix products, or None for fp32.
        writers: ranks below it write files of a checkpoint (see saver.py): 1 where rank 0 has all.
    """

    rank = 0
    world_size = 1
    writers = 1
    replicas: dist.ProcessGroup | None = None

    def __init__(self, device: torch.device, autocast_dtype: torch.dtype | None) -> None:
        self.device = device
        self.autocast_dtype = autocast_dtype
        # fp16 has too little range for gradients; bf16 and fp32 need no scaling.
        self.scaler = torch.amp.GradScaler(device.type, enabled=autocast_dtype == torch.float16)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module to call in training; parameters stay those of `model`."""
        return model

    def autocast(self) -> AbstractContextManager[object]:
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)

    def accumulate(self, model: nn.Module, last: bool) -> AbstractContextManager[object]:
        """Around one micro-batch; gradients are exchanged only in the last of a step."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, this rank's share of the global mean."""
        self.scaler.scale(loss).backward()

    def step(
        self, optimizers: Sequence[Optimizer], parameters: Sequence[nn.Parameter], max_norm: float
    ) -> tuple[float, bool]:
        """Clip and update.

        Returns:
            The global gradient norm before clipping, and whether the update was made: with a
            non-finite gradient nothing changes. All ranks see the same norm, so they agree.
        """
        for optimizer in optimizers:
            self.scaler.unscale_(optimizer)
        norm = float(nn.utils.clip_grad_norm_(parameters, max_norm))
        finite = bool(torch.isfinite(torch.tensor(norm)))
        for optimizer in optimizers:
            if finite:
                self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        return norm, finite

    def sum(self, values: Tensor) -> Tensor:
        """Add a host vector over all ranks."""
        return values

    def barrier(self) -> None:
        """Wait for all ranks."""

    def close(self) -> None:
        """Leave the process group."""


class DDP(SingleDevice):
    """Every rank holds the whole model and its own rows; gradients are summed over the ranks."""

    def __init__(self, device: torch.device, autocast_dtype: torch.dtype | None) -> None:
        super().__init__(device, autocast_dtype)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend)
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self.replicas = dist.group.WORLD

    def wrap(self, model: nn.Module) -> nn.Module:
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            model, device_ids=ids, gradient_as_bucket_view=True, **_OWN_BUFFERS
        )

    def accumulate(self, model: nn.Module, last: bool) -> AbstractContextManager[object]:
        assert isinstance(model, DistributedDataParallel)
        return nullcontext() if last else model.no_sync()

    def backward(self, loss: Tensor) -> None:
        # DDP averages over ranks; our losses are already shares of the global mean.
        super().backward(loss * self.world_size)

    def sum(self, values: Tensor) -> Tensor:
        dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        dist.barrier()

    def close(self) -> None:
        dist.destroy_process_group()


def pick_strategy(device: torch.device, autocast_dtype: torch.dtype | None) -> SingleDevice:
    """DDP when torchrun (or a launcher that sets the same variables) started several processes."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return DDP(device, autocast_dtype)
    return SingleDevice(device, autocast_dtype)
