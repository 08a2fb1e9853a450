"""What the engines of several processes share: the process group, sums over it, the scale of the loss."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor

from mengya.errors import UserError
from mengya.training.distributed.single import SingleDevice

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Ranks(SingleDevice):
    """One process per device. Sums of small host vectors go over gloo, tensors of a GPU over NCCL.

    Raises:
        UserError: no launcher set the variables that tell the processes of one another.
    """

    def __init__(self, device: torch.device, autocast_dtype: torch.dtype | None) -> None:
        super().__init__(device, autocast_dtype)
        self._owns_group = not dist.is_initialized()
        if self._owns_group:
            missing = [name for name in _VARIABLES if name not in os.environ]
            if missing:
                raise UserError(
                    f"this strategy.name needs processes started by a launcher ({', '.join(missing)} not "
                    "set): torchrun --nproc_per_node 2 -m mengya ... ; one process is enough with "
                    "--nproc_per_node 1"
                )
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self.replicas = dist.group.WORLD

    def backward(self, loss: Tensor) -> None:
        # The engines average over ranks; our losses are already shares of the global mean.
        super().backward(loss * self.world_size)

    def sum(self, values: Tensor) -> Tensor:
        dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        # A sum on the host: dist.barrier would wait on the GPU's stream under NCCL.
        self.sum(torch.zeros(1))

    def close(self) -> None:
        if self._owns_group:
            dist.destroy_process_group()
