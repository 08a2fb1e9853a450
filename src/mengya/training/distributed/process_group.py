"""What the engines of several processes share: the process group, all-reduce, the scale of the loss."""

from __future__ import annotations

import os
import time

import torch
import torch.distributed as dist
from torch import Tensor

from mengya.errors import UserError
from mengya.training.distributed.single import SingleDevice
from mengya.training.execution import Execution

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def leave_process_group() -> None:
    """Destroy all groups, then give gloo's threads time to release the tensors of their last collectives.

    A thread that does so while Python ends aborts the process: the run would count as failed
    (pytorch/pytorch#179291; seen once in some hundred runs on two loaded cores).
    """
    dist.destroy_process_group()
    time.sleep(0.1)  # without the GIL, which is what they wait for


class ProcessGroupStrategy(SingleDevice):
    """One process per device. Small host vectors are reduced over gloo, tensors of a GPU over NCCL.

    Raises:
        UserError: no launcher set the variables by which processes find one another.
    """

    def __init__(self, execution: Execution) -> None:
        super().__init__(execution)
        self._owns_group = not dist.is_initialized()
        if self._owns_group:
            missing = [name for name in _VARIABLES if name not in os.environ]
            if missing:
                raise UserError(
                    f"this strategy.name needs processes started by a launcher ({', '.join(missing)} not "
                    "set): torchrun --nproc_per_node 2 -m mengya ... ; one process is enough with "
                    "--nproc_per_node 1"
                )
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self.dp_group = dist.group.WORLD

    def backward(self, loss: Tensor) -> None:
        # The engines average over ranks; our losses are already shares of the global mean.
        super().backward(loss * self.world_size)

    def all_reduce(self, values: Tensor) -> Tensor:
        dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        # A sum on the host: dist.barrier would wait on the GPU's stream under NCCL.
        self.all_reduce(torch.zeros(1))

    def close(self) -> None:
        if self._owns_group:
            leave_process_group()
