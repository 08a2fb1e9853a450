"""Muon and NorMuon: momentum whose update is orthogonalized, for the matrices inside the layers.

Takes matrices [O, I] and stacks of them [E, O, I] (experts), with gradients that are the same on every
rank. Matrices of one shape are orthogonalized in one batch; given a process group, each rank does its
share of the batch and the results are gathered. Of parameters sharded by FSDP (DTensors) the momentum
is sharded alike and gathered for the update; the neurons' moments are replicated on every rank. So a
run resumes with any number of ranks. Nothing here waits for the device.
Shapes: N matrices of O output neurons (rows) and I inputs.
"""

# pyright: reportPrivateImportUsage=false
# (torch._foreach_*: one kernel for a list of tensors; torch's own optimizers are made of them)

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from mengya.runtime.integers import ceil_div
from mengya.training.optim.config import OptimizerConfig
from mengya.training.optim.matrix_optimizer import State
from mengya.training.optim.orthogonalize import orthogonalize

# About the RMS of AdamW's updates (Liu et al. 2025, arXiv:2502.16982, section 2.2).
_UPDATE_RMS = 0.2
_PAIRS = ("experts.gate_up_proj",)  # two matrices in one, the second below the first
BATCH_ELEMENTS = 1 << 26  # matrices orthogonalized at once: 256 MiB in fp32, however many there are


class Muon(Optimizer):
    """p <- p - lr wd p - lr U, with U the orthogonalized Nesterov momentum M, its RMS about 0.2.

        Muon:     U = 0.2 sqrt(max(O, I)) orthogonalize(M)       (Jordan et al. 2024; arXiv:2502.16982)
        NorMuon:  V = orthogonalize(M);  v_o <- beta2 v_o + (1 - beta2) mean_i V_oi^2;
                  U = 0.2 W / rms(W) with W_oi = V_oi / sqrt(v_o)               (arXiv:2510.05491)

    Args:
        params: parameters, or groups of them. A group may say `parts`: how many matrices, one below
            the other, each [O, I] or expert is made of (gate and up stored as one).
        beta2: None for Muon, the decay of the neurons' second moment for NorMuon.
        dp_group: the processes that share the work, or None. Gradients must already be equal on all.

    Attributes:
        found_inf: a scalar on the device that torch.amp.GradScaler and `step_unless` set for the time of
            a step: where it is 1, the step changes nothing.
    """

    _step_supports_amp_scaling = True
    found_inf: Tensor

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        beta2: float | None = None,
        weight_decay: float = 0.0,
        dp_group: dist.ProcessGroup | None = None,
    ) -> None:
        self._dp_group = dp_group
        defaults = {"lr": lr, "momentum": momentum, "beta2": beta2, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"parts": 1})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("Muon takes no closure")
        skip = self._skip()
        for group in self.param_groups:
            for parameters in _batches(group["params"]):
                self._step_batch(group, parameters, skip)

    def _step_batch(self, group: dict[str, Any], parameters: list[Tensor], skip: Tensor) -> None:
        *_, rows, I = parameters[0].shape
        O = rows // group["parts"]
        buffers = [_local(self._momentum(p)) for p in parameters]
        gradients = [_local(p.grad) for p in parameters if p.grad is not None]
        # To skip: set grad = momentum, so that lerp is a no-op.
        ahead = [torch.where(skip, b, g) for b, g in zip(buffers, gradients, strict=True)]
        torch._foreach_lerp_(buffers, ahead, 1 - group["momentum"])
        torch._foreach_lerp_(ahead, buffers, group["momentum"])
        full = [_full(m, p) for m, p in zip(ahead, parameters, strict=True)]
        update_NOI = self._orthogonalized(torch.cat([m.reshape(-1, O, I) for m in full]))
        if group["beta2"] is None:
            rms = _UPDATE_RMS * max(O, I) ** 0.5
            scale = torch.full((1, 1, 1), rms, device=update_NOI.device)
        else:
            shape = (parameters[0].numel() // (O * I), O)
            moments = [self._state(p, "second_moment", shape, torch.float32) for p in parameters]
            scale = _even_neurons(update_NOI, moments, group["beta2"], skip)
        update_NOI = update_NOI * (scale * (~skip * group["lr"]))  # one pass, bf16 to fp32 on CUDA
        updates = [
            _shard(u.view(p.shape), p)
            for u, p in zip(update_NOI.chunk(len(parameters)), parameters, strict=True)
        ]
        own = [_local(p) for p in parameters]
        if group["weight_decay"]:
            torch._foreach_mul_(own, 1 - ~skip * (group["lr"] * group["weight_decay"]))
        torch._foreach_sub_(own, updates)

    def _skip(self) -> Tensor:
        """Whether to skip this step: a bool on the device."""
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None:
            return found_inf != 0
        return torch.zeros((), dtype=torch.bool, device=self.param_groups[0]["params"][0].device)

    def _orthogonalized(self, x_NOI: Tensor) -> Tensor:
        """`orthogonalize`, the matrices divided among the ranks."""
        if self._dp_group is None:
            return orthogonalize(x_NOI)
        rank, world_size = dist.get_rank(self._dp_group), dist.get_world_size(self._dp_group)
        N = len(x_NOI)
        share = ceil_div(N, world_size)
        mine = F.pad(x_NOI, (0, 0, 0, 0, 0, share * world_size - N))
        mine = orthogonalize(mine[rank * share : (rank + 1) * share])
        gathered = mine.new_empty(share * world_size, *mine.shape[1:])
        dist.all_gather_into_tensor(gathered, mine, self._dp_group)
        return gathered[:N]

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)  # sharded as the parameter is
        return state["momentum_buffer"]

    def _state(
        self, parameter: Tensor, key: str, shape: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor:
        state = self.state[parameter]
        if key not in state:
            state[key] = torch.zeros(shape, dtype=dtype, device=parameter.device)
        return state[key]


class MuonMatrices:
    """A `MatrixOptimizer`: Muon, or NorMuon where it `normalizes`.

    State of a parameter [..., O * parts, I]: the momentum, and NorMuon's second moment of each row.
    """

    takes_stacks = True
    orthogonalizes = True

    def __init__(self, normalizes: bool) -> None:
        self._normalizes = normalizes
        moments = {"second_moment"} if normalizes else set[str]()
        self.state_names = frozenset({"momentum_buffer", *moments})

    def build(
        self,
        matrices: Mapping[str, nn.Parameter],
        config: OptimizerConfig,
        dp_group: dist.ProcessGroup | None,
    ) -> Muon:
        muon = config.muon
        pairs = [p for n, p in matrices.items() if n.endswith(_PAIRS)]
        single = [p for n, p in matrices.items() if not n.endswith(_PAIRS)]
        groups = [{"params": single}, {"params": pairs, "parts": 2}]
        return Muon(
            [g for g in groups if g["params"]],
            lr=config.lr if muon.lr is None else muon.lr,
            momentum=muon.momentum,
            beta2=muon.beta2 if self._normalizes else None,
            weight_decay=config.weight_decay if muon.weight_decay is None else muon.weight_decay,
            dp_group=dp_group,
        )

    def state_shapes(
        self, shape: tuple[int, ...], group: Mapping[str, Any]
    ) -> Mapping[str, tuple[int, ...]]:
        *stack, rows, _ = shape
        parts = group["parts"]
        moments = {"second_moment": (prod(stack) * parts, rows // parts)}
        return {"momentum_buffer": shape, **(moments if self._normalizes else {})}

    def parameter_shape(self, state: State) -> list[int]:
        return list(state["momentum_buffer"].shape)

    def changed_setting(self, saved: list[State], own: list[State]) -> str | None:
        return None

    def planned_numbers(self, shape: tuple[int, ...]) -> int:
        return prod(shape) + (prod(shape[:-1]) if self._normalizes else 0)


def _batches(parameters: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters with gradients by shape, in their own order, no batch much above BATCH_ELEMENTS."""
    by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            by_shape[parameter.shape].append(parameter)
    for shape, alike in by_shape.items():
        count = max(1, BATCH_ELEMENTS // shape.numel())
        yield from (alike[at : at + count] for at in range(0, len(alike), count))


def _local(tensor: Tensor) -> Tensor:
    """The memory of this rank: its shard of a DTensor, or all of a plain tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _full(local: Tensor, parameter: Tensor) -> Tensor:
    """The full matrix of which every rank has `local`, sharded as `parameter` is."""
    if not isinstance(parameter, DTensor):
        return local
    mesh, placements = parameter.device_mesh, parameter.placements
    shape, stride = parameter.shape, parameter.stride()
    return DTensor.from_local(local, mesh, placements, shape=shape, stride=stride).full_tensor()


def _shard(full: Tensor, parameter: Tensor) -> Tensor:
    """This rank's shard, as that of `parameter`, of a matrix that every rank has in full."""
    if not isinstance(parameter, DTensor):
        return full
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(full, mesh, placements, src_data_rank=None).to_local()


def _even_neurons(update_NOI: Tensor, moments: list[Tensor], beta2: float, skip: Tensor) -> Tensor:
    """[N, O, 1]: factors that divide each row by the root of its second moment, and give each matrix
    the RMS _UPDATE_RMS.

    Of what remains after orthogonalizing, some rows are much larger than others. The moments start
    at zero and are not corrected for it: the factor is the same for all rows and the RMS takes it out.
    Where `skip`, they stay as they are.
    """
    squares_NO = torch.linalg.vector_norm(update_NOI, dim=-1, dtype=torch.float32).square()
    squares_NO = torch.where(skip, torch.cat(moments), squares_NO / update_NOI.shape[-1])
    torch._foreach_lerp_(moments, list(squares_NO.chunk(len(moments))), 1 - beta2)
    even_NO = 1 / (torch.cat(moments).sqrt() + 1e-10)
    rms_N1 = (squares_NO * even_NO.square()).mean(-1, keepdim=True).sqrt()
    return (even_NO * (_UPDATE_RMS / (rms_N1 + 1e-10)))[..., None]
