"""PyTorch's FSDP2: weights, gradients and optimizer state are sharded over the ranks, layer by layer.

Rank 0 makes or reads the weights, the others a model without memory; `place` shards the modules and
scatters one tensor after another, so no GPU ever holds more than its part and one full tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.optim import Optimizer

from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.training.distributed.config import StrategyConfig
from mengya.training.distributed.process_group import ProcessGroupStrategy
from mengya.training.distributed.sharded import ShardedStrategy, named_tensors
from mengya.training.execution import Execution
from mengya.training.optim.muon import Muon


class FSDP(ShardedStrategy, ProcessGroupStrategy):
    """`fully_shard` on each decoder layer and on the root (embedding, last norm, output layer).

    Matrix products run in `autocast_dtype` because the gathered weights are of it; the shards, the
    optimizer and (unless strategy.reduce_dtype=bf16) the sum of gradients stay fp32.
    """

    def __init__(self, execution: Execution, config: StrategyConfig) -> None:
        if execution.autocast_dtype == torch.float16:
            raise UserError(
                "strategy.name=fsdp computes in bf16 or fp32; write precision=bf16 or precision=fp32, "
                "or strategy.name=ddp for fp16"
            )
        ProcessGroupStrategy.__init__(self, execution)
        ShardedStrategy.__init__(self)
        self.init_device = torch.device("cpu" if self.rank == 0 else "meta")
        self.num_writers = self.world_size
        self._reshard = config.reshard_after_forward
        self._precision = MixedPrecisionPolicy(
            param_dtype=execution.autocast_dtype,
            reduce_dtype=torch.bfloat16 if config.reduce_dtype == "bf16" else torch.float32,
        )
        self._mesh = init_device_mesh(self.device.type, (self.world_size,))

    def place(self, model: CausalLM) -> None:
        full = dict(named_tensors(model))
        _drop_memory(model)
        self.remember(model)
        if self.execution.compile:
            model.compile_layers()
        for layer in model.model.layers:
            self._shard(layer)
        self._shard(model)
        model.register_forward_hook(_free_gathered)
        model.to_empty(device=self.device)
        model.tie_weights()
        for name, place in named_tensors(model):
            self.scatter(name, full.pop(name) if self.rank == 0 else None, place)

    def wrap(self, model: CausalLM, optimizers: Sequence[Optimizer]) -> nn.Module:
        if not all(isinstance(o, torch.optim.AdamW | Muon) for o in optimizers):
            raise UserError(
                "strategy.name=fsdp shards the matrices, which this optimizer.name does not support: "
                "write adamw, muon or normuon, or strategy.name=ddp"
            )
        return model

    def autocast(self) -> AbstractContextManager[object]:
        return nullcontext()

    def accumulate(self, model: nn.Module, last: bool) -> AbstractContextManager[object]:
        assert isinstance(model, FSDPModule)
        model.set_requires_gradient_sync(last)
        model.set_is_last_backward(last)
        return nullcontext()

    def clip(self, parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
        norm = nn.utils.clip_grad_norm_(parameters, max_norm)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    @torch.no_grad()
    def gather_full(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """One tensor after another: a device holds one full tensor at a time, rank 0's host all."""
        gathered: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.rank == 0:
                gathered[name] = full.to("cpu")
        return gathered

    def _shard(self, module: nn.Module) -> None:
        fully_shard(
            module,
            mesh=self._mesh,
            mp_policy=self._precision,
            reshard_after_forward=self._reshard and not isinstance(module, CausalLM),
            shard_placement_fn=self._placement,
        )

    def _placement(self, parameter: nn.Parameter) -> Shard:
        """Rows; of stacked experts entire experts, or rows of each where experts do not divide evenly."""
        if parameter.ndim == 3:
            experts, rows = parameter.shape[0], parameter.shape[1]
            if experts % self.world_size and rows % self.world_size == 0:
                return Shard(1)
        return Shard(0)

    @torch.no_grad()
    def scatter(self, name: str, full: Tensor | None, place: Tensor) -> None:
        """Send every rank its part of rank 0's tensor; a buffer is broadcast."""
        source = torch.empty(place.shape, dtype=place.dtype, device=self.device)
        if full is not None:
            source.copy_(full)
        if not isinstance(place, DTensor):
            if source.numel():  # a dense model has an empty buffer for the load of its experts
                dist.broadcast(source, src=0)
                place.copy_(source)
            return
        part = distribute_tensor(source, self._mesh, place.placements)
        place.to_local().copy_(part.to_local())


def _free_gathered(model: nn.Module, *_: object) -> None:
    """FSDP keeps gathered weights (the root's, or all without resharding) for the backward pass; where
    none follows, free them, so that `parameters()` gives the shards again."""
    if not torch.is_grad_enabled():
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def _drop_memory(model: nn.Module) -> None:
    """Replace every tensor by one of the same shape on "meta"; what was shared stays shared."""
    made: dict[Tensor, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if parameter not in made:
                made[parameter] = nn.Parameter(parameter.to("meta"), parameter.requires_grad)
            setattr(module, name, made[parameter])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to("meta"))
