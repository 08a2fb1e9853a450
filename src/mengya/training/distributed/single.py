"""One process, one device: the interface of every engine, and the engine that needs no other process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from mengya.models.causal_lm import CausalLM
from mengya.training.optim.build import load_optimizer_state, optimizer_state, step_unless


class SingleDevice:
    """One process, one device; also the base that the other engines change where they must.

    A run calls, in this order: `place` the model, build the optimizers, `wrap`; then the loop's four.

    Attributes:
        device: where model and batches live. rank, world_size: 0 and 1 here.
        replicas: the processes that see the same whole gradients (or shards of the same), or None.
        birth: where weights are made or read before `place`; "meta" on a rank that is sent its part.
        autocast_dtype: dtype of matrix products, or None for fp32.
        writers: ranks below this number have something to write in a checkpoint (see saver.py).
    """

    rank = 0
    world_size = 1
    replicas: dist.ProcessGroup | None = None
    birth = torch.device("cpu")
    writers = 1

    def __init__(self, device: torch.device, autocast_dtype: torch.dtype | None) -> None:
        self.device = device
        self.autocast_dtype = autocast_dtype
        # fp16 has too little range for gradients; bf16 and fp32 need no scaling.
        self.scaler = torch.amp.GradScaler(device.type, enabled=autocast_dtype == torch.float16)

    def place(self, model: CausalLM, compiled: bool = False) -> None:
        """Bring a model made on `birth` to the device or devices, in place; compile it if asked to."""
        model.to(self.device)
        if compiled:
            model.compile_layers()

    def wrap(self, model: CausalLM, optimizers: Sequence[Optimizer]) -> nn.Module:
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
    ) -> Tensor:
        """Clip and update; where the gradients are not finite, nothing changes.

        Returns:
            The global gradient norm before clipping, a scalar on the device and the same on all ranks.
            Where it is not finite there was no update. Whoever reads it waits for the device.
        """
        for optimizer in optimizers:
            self.scaler.unscale_(optimizer)
        norm = self.clip(parameters, max_norm)
        not_finite = (~norm.isfinite()).float()
        for optimizer in optimizers:
            step_unless(not_finite, optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        return norm

    def clip(self, parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
        """Scale the gradients down to a global norm of `max_norm`; gives the norm before."""
        return nn.utils.clip_grad_norm_(parameters, max_norm)

    def whole(self, model: CausalLM, device: torch.device) -> CausalLM | None:
        """A model with all weights, to write or to sample from: on rank 0, None on the others.

        It may be `model` itself, on whatever device that is; where the weights are sharded it is a
        copy on `device`. All ranks must call this.
        """
        return model if self.rank == 0 else None

    def gather(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Whole tensors, as they are now or copied to the host, on rank 0; nothing on the others.

        All ranks must call this.
        """
        return tensors if self.rank == 0 else {}

    def refill(self, model: CausalLM, read: Callable[[CausalLM], object]) -> None:
        """Let `read` load weights into the placed model, or into a whole copy whose weights go to all."""
        read(model)

    def shards(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The same tensors by name, as `tensor_files.own_part` takes them: plain, or DTensors."""
        return tensors

    def optimizer_state(
        self, optimizers: Sequence[Optimizer], model: nn.Module
    ) -> Mapping[str, Tensor]:
        """As `optim.optimizer_state`; plain tensors, or DTensors where the engine shards them."""
        return optimizer_state(optimizers, model)

    def load_optimizer_state(
        self, optimizers: Sequence[Optimizer], model: CausalLM, checkpoint: Path
    ) -> None:
        """As `optim.load_optimizer_state`; after `wrap`."""
        load_optimizer_state(optimizers, model, checkpoint)

    def sum(self, values: Tensor) -> Tensor:
        """Add a tensor, on the host or on the device, over all ranks."""
        return values

    def barrier(self) -> None:
        """Wait for all ranks."""

    def close(self) -> None:
        """Leave the process group."""
