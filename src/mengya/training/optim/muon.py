"""Muon and NorMuon: momentum whose update is orthogonalized, for the matrices inside the layers.

Takes matrices [O, I] and stacks of them [E, O, I] (experts), with gradients that are the same on every
rank. Matrices of one shape are orthogonalized in one batch; given a process group, each rank does its
share of the batch and the results are gathered. Of parameters sharded by FSDP (DTensors) the momentum
is sharded alike and gathered for the update; the neurons' moments are whole on every rank. So a run
goes on with any number of ranks. Nothing here waits for the device.
Shapes: N matrices of O output neurons (rows) and I inputs.
"""

# pyright: reportPrivateImportUsage=false
# (torch._foreach_*: one kernel for a list of tensors; torch's own optimizers are made of them)

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from math import prod
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from mengya.config import Config
from mengya.training.optim.orthogonalize import orthogonalize

_UPDATE_RMS = (
    0.2  # about what AdamW's updates have (Liu et al. 2025, arXiv:2502.16982, section 2.2)
)
BATCH_ELEMENTS = 1 << 26  # matrices orthogonalized at once: 256 MiB in fp32, however many there are


class MuonConfig(Config):
    lr: float | None = Field(default=None, gt=0)
    """Peak rate of the matrices; null: optimizer.lr. In AdamW's units, as updates are as large."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Nesterov momentum."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """normuon: decay of each neuron's second moment."""
    weight_decay: float | None = Field(default=None, ge=0)
    """Decoupled decay of the matrices; null: optimizer.weight_decay."""


class Muon(Optimizer):
    """p <- p - lr wd p - lr U, with U the orthogonalized Nesterov momentum M, its RMS about 0.2.

        Muon:     U = 0.2 sqrt(max(O, I)) orthogonalize(M)       (Jordan et al. 2024; arXiv:2502.16982)
        NorMuon:  V = orthogonalize(M);  v_o <- beta2 v_o + (1 - beta2) mean_i V_oi^2;
                  U = 0.2 W / rms(W) with W_oi = V_oi / sqrt(v_o)               (arXiv:2510.05491)

    Args:
        params: parameters, or groups of them. A group may say `parts`: how many matrices, one below
            the other, each [O, I] or expert is made of (gate and up stored as one).
        beta2: None for Muon, the decay of the neurons' second moment for NorMuon.
        ranks: the processes that share the work, or None. Gradients must already be equal on all.

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
        ranks: dist.ProcessGroup | None = None,
    ) -> None:
        self._ranks = ranks
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
        buffers = [_own(self._momentum(p)) for p in parameters]
        gradients = [_own(p.grad) for p in parameters if p.grad is not None]
        # A step to skip is one whose gradient is the momentum itself.
        ahead = [torch.where(skip, b, g) for b, g in zip(buffers, gradients, strict=True)]
        torch._foreach_lerp_(buffers, ahead, 1 - group["momentum"])
        torch._foreach_lerp_(ahead, buffers, group["momentum"])
        whole = [_gathered(m, p) for m, p in zip(ahead, parameters, strict=True)]
        update_NOI = self._orthogonalized(torch.cat([m.reshape(-1, O, I) for m in whole]))
        if group["beta2"] is None:
            rms = _UPDATE_RMS * max(O, I) ** 0.5
            scale = torch.full((1, 1, 1), rms, device=update_NOI.device)
        else:
            shape = (parameters[0].numel() // (O * I), O)
            moments = [self._state(p, "second_moment", shape, torch.float32) for p in parameters]
            scale = _even_neurons(update_NOI, moments, group["beta2"], skip)
        update_NOI = update_NOI * (scale * (~skip * group["lr"]))  # one pass, bf16 to fp32 on CUDA
        updates = [
            _part(u.view(p.shape), p)
            for u, p in zip(update_NOI.chunk(len(parameters)), parameters, strict=True)
        ]
        mine = [_own(p) for p in parameters]
        if group["weight_decay"]:
            torch._foreach_mul_(mine, 1 - ~skip * (group["lr"] * group["weight_decay"]))
        torch._foreach_sub_(mine, updates)

    def _skip(self) -> Tensor:
        """Whether this step must change nothing: a bool on the device."""
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None:
            return found_inf != 0
        return torch.zeros((), dtype=torch.bool, device=self.param_groups[0]["params"][0].device)

    def _orthogonalized(self, x_NOI: Tensor) -> Tensor:
        """`orthogonalize`, the matrices divided among the ranks."""
        if self._ranks is None:
            return orthogonalize(x_NOI)
        rank, world_size = dist.get_rank(self._ranks), dist.get_world_size(self._ranks)
        N = len(x_NOI)
        share = -(-N // world_size)
        mine = F.pad(x_NOI, (0, 0, 0, 0, 0, share * world_size - N))
        mine = orthogonalize(mine[rank * share : (rank + 1) * share])
        gathered = mine.new_empty(share * world_size, *mine.shape[1:])
        dist.all_gather_into_tensor(gathered, mine, self._ranks)
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


def muon_state_shapes(
    shape: tuple[int, ...], parts: int, neurons: bool
) -> dict[str, tuple[int, ...]]:
    """State tensors of a parameter [..., O * parts, I]; `neurons`: NorMuon keeps their moments too."""
    *stack, rows, _ = shape
    moments = {"second_moment": (prod(stack) * parts, rows // parts)} if neurons else {}
    return {"momentum_buffer": shape, **moments}


def _batches(parameters: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters with gradients by shape, in their own order, no batch much above BATCH_ELEMENTS."""
    by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            by_shape[parameter.shape].append(parameter)
    for shape, alike in by_shape.items():
        count = max(1, BATCH_ELEMENTS // shape.numel())
        yield from (alike[at : at + count] for at in range(0, len(alike), count))


def _own(tensor: Tensor) -> Tensor:
    """The memory of this rank: its shard of a DTensor, or all of a plain tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _gathered(own: Tensor, parameter: Tensor) -> Tensor:
    """The whole matrix of which every rank has `own`, sharded as `parameter` is."""
    if not isinstance(parameter, DTensor):
        return own
    mesh, placements = parameter.device_mesh, parameter.placements
    shape, stride = parameter.shape, parameter.stride()
    return DTensor.from_local(own, mesh, placements, shape=shape, stride=stride).full_tensor()


def _part(whole: Tensor, parameter: Tensor) -> Tensor:
    """This rank's part of a matrix that every rank has whole."""
    if not isinstance(parameter, DTensor):
        return whole
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(whole, mesh, placements, src_data_rank=None).to_local()


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
