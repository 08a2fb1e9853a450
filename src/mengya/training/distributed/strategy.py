"""How a step runs over devices: the interface that the loop knows; one file per implementation.

The loop has no `if distributed`. Processes are started by torchrun, `accelerate launch`, Slurm or an
engine's own launcher: all of them set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, and
nothing else is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from mengya.models.causal_lm import CausalLM
from mengya.training.execution import Execution


class Strategy(Protocol):
    """A run calls, in this order: `place` the model, build the optimizers, `wrap`; then, for each step,
    accumulate, autocast and backward per micro-batch, and `step`. All ranks make the same calls."""

    @property
    def execution(self) -> Execution: ...

    @property
    def device(self) -> torch.device:
        """Where model and batches live."""
        ...

    @property
    def rank(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    @property
    def dp_group(self) -> dist.ProcessGroup | None:
        """The data-parallel processes: they have the same gradients, or shards of them. None: only one."""
        ...

    @property
    def init_device(self) -> torch.device:
        """Where weights are made or read before `place`: "meta" on a rank that is sent its part."""
        ...

    @property
    def num_writers(self) -> int:
        """Ranks below this number write files of a checkpoint (checkpoint/writer.py)."""
        ...

    @property
    def scaler(self) -> torch.amp.GradScaler:
        """The loss scaler; disabled unless autocast is fp16."""
        ...

    def place(self, model: CausalLM) -> None:
        """Move a model made on `init_device` to the device or devices, in place; compile it if the run
        compiles."""
        ...

    def wrap(self, model: CausalLM, optimizers: Sequence[Optimizer]) -> nn.Module:
        """The module to call in training; parameters stay those of `model`.

        Raises:
            UserError: the engine does not work with these optimizers.
        """
        ...

    def autocast(self) -> AbstractContextManager[object]:
        """Around a forward pass."""
        ...

    def accumulate(self, model: nn.Module, last: bool) -> AbstractContextManager[object]:
        """Around one micro-batch; gradients are reduced only in the last of a step."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, this rank's share of the global mean."""
        ...

    def step(
        self, optimizers: Sequence[Optimizer], parameters: Sequence[nn.Parameter], max_norm: float
    ) -> Tensor:
        """Clip and update; where the gradients are not finite, nothing changes.

        Returns:
            The global gradient norm before clipping, a scalar on the device and the same on all ranks.
            Where it is not finite there was no update. Reading it waits for the device.
        """
        ...

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum a tensor, on the host or on the device, over all ranks; may change it in place."""
        ...

    def barrier(self) -> None:
        """Wait for all ranks."""
        ...

    def full_model(self, model: CausalLM, device: torch.device) -> CausalLM | None:
        """A model with all weights, to write or to sample from: on rank 0, None on the others.

        It may be `model` itself, on whatever device that is; where weights are sharded, a copy on `device`.
        """
        ...

    def gather_full(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Full tensors on rank 0, as they are or copied to the host; nothing on the others."""
        ...

    def local_shards(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The same tensors by name, as `tensor_files.own_part` takes them: plain, or DTensors."""
        ...

    def load_full_weights(self, model: CausalLM, load: Callable[[CausalLM], object]) -> None:
        """Let `load` fill the placed model, or a full copy on rank 0 whose weights are then scattered."""
        ...

    def optimizer_state(
        self, optimizers: Sequence[Optimizer], model: nn.Module
    ) -> Mapping[str, Tensor]:
        """As `optim.build.optimizer_state`; DTensors where the engine shards the state."""
        ...

    def load_optimizer_state(
        self, optimizers: Sequence[Optimizer], model: CausalLM, checkpoint: Path
    ) -> None:
        """As `optim.build.load_optimizer_state`; after `wrap`."""
        ...

    def close(self) -> None:
        """Leave the process group."""
        ...
