"""One process, one device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from mengya.models.causal_lm import CausalLM
from mengya.training.execution import Execution
from mengya.training.optim.build import load_optimizer_state, optimizer_state, step_unless


class SingleDevice:
    """A `Strategy` without communication; the others override what differs for them."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.device = execution.device
        self.rank = 0
        self.world_size = 1
        self.dp_group: dist.ProcessGroup | None = None
        self.init_device = torch.device("cpu")
        self.num_writers = 1
        # fp16 has too little range for gradients; bf16 and fp32 need no scaling.
        fp16 = execution.autocast_dtype == torch.float16
        self.scaler = torch.amp.GradScaler(execution.device.type, enabled=fp16)

    def place(self, model: CausalLM) -> None:
        model.to(self.device)
        if self.execution.compile:
            model.compile_layers()

    def wrap(self, model: CausalLM, optimizers: Sequence[Optimizer]) -> nn.Module:
        return model

    def autocast(self) -> AbstractContextManager[object]:
        if self.execution.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.execution.autocast_dtype)

    def accumulate(self, model: nn.Module, last: bool) -> AbstractContextManager[object]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def step(
        self, optimizers: Sequence[Optimizer], parameters: Sequence[nn.Parameter], max_norm: float
    ) -> Tensor:
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

    def all_reduce(self, values: Tensor) -> Tensor:
        return values

    def barrier(self) -> None:
        pass

    def full_model(self, model: CausalLM, device: torch.device) -> CausalLM | None:
        return model if self.rank == 0 else None

    def gather_full(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return tensors if self.rank == 0 else {}

    def local_shards(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return tensors

    def load_full_weights(self, model: CausalLM, load: Callable[[CausalLM], object]) -> None:
        load(model)

    def optimizer_state(
        self, optimizers: Sequence[Optimizer], model: nn.Module
    ) -> Mapping[str, Tensor]:
        return optimizer_state(optimizers, model)

    def load_optimizer_state(
        self, optimizers: Sequence[Optimizer], model: CausalLM, checkpoint: Path
    ) -> None:
        load_optimizer_state(optimizers, model, checkpoint)

    def close(self) -> None:
        pass
