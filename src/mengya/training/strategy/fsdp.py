"""PyTorch's FSDP2: weights, gradients and optimizer state are sharded over the ranks, layer by layer.

Rank 0 makes or reads the weights, the others a model without memory; `place` shards the modules and
scatters one tensor after another, so no GPU ever holds more than its part and one whole tensor.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from mengya.config import UserError
from mengya.models.causal_lm import CausalLM
from mengya.training.strategy.config import StrategyConfig
from mengya.training.strategy.ranks import Ranks


class FSDP(Ranks):
    """`fully_shard` on each decoder layer and on the root (embedding, last norm, output layer).

    Matrix products run in `autocast_dtype` because the gathered weights are of it; the shards, the
    optimizer and (unless strategy.reduce_dtype=bf16) the sum of gradients stay fp32.
    """

    def __init__(
        self, device: torch.device, autocast_dtype: torch.dtype | None, config: StrategyConfig
    ) -> None:
        if autocast_dtype == torch.float16:
            raise UserError(
                "strategy.name=fsdp computes in bf16 or fp32; write precision=bf16 or precision=fp32, "
                "or strategy.name=ddp for fp16"
            )
        super().__init__(device, autocast_dtype)
        self.birth = torch.device("cpu" if self.rank == 0 else "meta")
        self._reshard = config.reshard_after_forward
        self._precision = MixedPrecisionPolicy(
            param_dtype=autocast_dtype,
            reduce_dtype=torch.bfloat16 if config.reduce_dtype == "bf16" else torch.float32,
        )
        self._mesh = init_device_mesh(device.type, (self.world_size,))
        self._skeletons: dict[nn.Module, CausalLM] = {}

    def place(self, model: CausalLM, compiled: bool = False) -> None:
        whole = dict(_named_tensors(model))
        _drop_memory(model)
        self._skeletons[model] = copy.deepcopy(model)
        if compiled:
            for layer in model.model.layers:
                # The method, not the module: FSDP's hooks gather and free the weights around it.
                layer.forward = torch.compile(layer.forward)
        for layer in model.model.layers:
            self._shard(layer)
        self._shard(model)
        model.register_forward_hook(_free_root)
        model.to_empty(device=self.device)
        model.tie_weights()
        for name, place in _named_tensors(model):
            self._scatter(whole.pop(name), place)

    def autocast(self) -> AbstractContextManager[object]:
        return nullcontext()

    def accumulate(self, model: nn.Module, last: bool) -> AbstractContextManager[object]:
        assert isinstance(model, FSDPModule)
        model.set_requires_gradient_sync(last)
        model.set_is_last_backward(last)
        return nullcontext()

    def clip(self, parameters: Sequence[nn.Parameter], max_norm: float) -> float:
        norm = nn.utils.clip_grad_norm_(parameters, max_norm)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def whole(self, model: CausalLM, device: torch.device) -> CausalLM | None:
        whole = None
        if self.rank == 0:
            whole = copy.deepcopy(self._skeletons[model]).to_empty(device=device)
            whole.tie_weights()
        places = dict(_named_tensors(whole)) if whole is not None else {}
        with torch.no_grad():
            for name, tensor in _named_tensors(model):
                full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
                if places:
                    places[name].copy_(full)
        return whole

    @torch.no_grad()
    def gather(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """One tensor after another: a device holds one whole tensor at a time, rank 0's host all."""
        gathered: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.rank == 0:
                gathered[name] = whole.to("cpu")
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
        """Rows; of stacked experts whole experts, or rows of each where experts do not divide evenly."""
        if parameter.ndim == 3:
            experts, rows = parameter.shape[0], parameter.shape[1]
            if experts % self.world_size and rows % self.world_size == 0:
                return Shard(1)
        return Shard(0)

    @torch.no_grad()
    def _scatter(self, whole: Tensor, place: Tensor) -> None:
        """Send every rank its part of rank 0's tensor; a buffer is sent whole."""
        source = torch.empty(whole.shape, dtype=whole.dtype, device=self.device)
        if self.rank == 0:
            source.copy_(whole)
        if not isinstance(place, DTensor):
            dist.broadcast(source, src=0)
            place.copy_(source)
            return
        part = distribute_tensor(source, self._mesh, place.placements)
        place.to_local().copy_(part.to_local())


def _free_root(model: nn.Module, *_: object) -> None:
    """FSDP keeps the root's gathered weights for the backward pass; where none follows, free them, so
    that `parameters()` gives the shards again."""
    if not torch.is_grad_enabled():
        assert isinstance(model, FSDPModule)
        model.reshard()


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, shared ones once."""
    yield from model.named_parameters()
    yield from model.named_buffers()


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
