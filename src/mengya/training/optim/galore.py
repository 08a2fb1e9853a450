"""GaLore (Zhao et al. 2024, arXiv:2403.03507) by the library pytorch-optimizer, with state that is tensors.

AdamW in a low-rank subspace of each matrix's gradient: its moments are [rows, rank], or [rank, columns].
The library keeps the subspace in an object; between two steps we keep its tensor instead, so that
checkpoints need no pickle and a resumed run continues bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from mengya.errors import UserError
from mengya.runtime.optional import require
from mengya.training.optim.config import OptimizerConfig
from mengya.training.optim.matrix_optimizer import State


class GaLoreMatrices:
    """A `MatrixOptimizer` over matrices [rows, columns]."""

    state_names = frozenset({"step", "exp_avg", "exp_avg_sq", "subspace"})
    takes_stacks = False
    orthogonalizes = False

    def build(
        self,
        matrices: Mapping[str, nn.Parameter],
        config: OptimizerConfig,
        dp_group: dist.ProcessGroup | None,
    ) -> Optimizer:
        library = require("pytorch_optimizer", "galore")
        galore = config.galore
        group = {
            "params": list(matrices.values()),
            "rank": galore.rank,
            "update_proj_gap": galore.update_every,
            "scale": galore.scale,
            "projection_type": "std",
        }
        if any(isinstance(p, DTensor) for p in group["params"]):
            raise UserError(
                "optimizer.name=galore decomposes full gradients, which strategy.name=fsdp shards; "
                "write strategy.name=ddp, or another optimizer"
            )
        optimizer = library.GaLore(
            [group],
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            weight_decay=config.weight_decay,
        )
        optimizer.register_step_pre_hook(_unpack)
        optimizer.register_step_post_hook(_pack)
        return optimizer

    def state_shapes(
        self, shape: tuple[int, ...], group: Mapping[str, Any]
    ) -> Mapping[str, tuple[int, ...]]:
        """Of a matrix [O, I]: the subspace is of the shorter side, of at most its dimensions."""
        O, I = shape
        rank = min(group["rank"], O, I)
        moments, subspace = ((O, rank), (rank, I)) if O >= I else ((rank, I), (O, rank))
        return {"step": (), "exp_avg": moments, "exp_avg_sq": moments, "subspace": subspace}

    def parameter_shape(self, state: State) -> list[int]:
        # Moments [O, rank] and subspace [rank, I], or [rank, I] and [O, rank].
        moments, subspace = state["exp_avg"].shape, state["subspace"].shape
        if moments[1:] == subspace[:1]:
            return [moments[0], subspace[1]]
        return [subspace[0], moments[1]]

    def changed_setting(self, saved: list[State], own: list[State]) -> str | None:
        if (has := _rank(saved)) == (wants := _rank(own)):
            return None
        return (
            f"has subspaces of rank {has}, this run makes them of {wants}; write "
            f"optimizer.galore.rank={has} to resume it"
        )

    def planned_numbers(self, shape: tuple[int, ...]) -> int:
        return 2 * prod(shape)  # AdamW's, an upper bound


def _rank(states: list[State]) -> int:
    """Of the largest subspace: optimizer.galore.rank, or less where no matrix has so many rows."""
    return max(min(state["subspace"].shape) for state in states)


def _unpack(optimizer: Optimizer, *_: Any) -> None:
    """Give the library the projectors that it left as tensors."""
    projectors = require("pytorch_optimizer.optimizer.utils.galore", "galore")
    for group in optimizer.param_groups:
        names = ("rank", "update_proj_gap", "scale", "projection_type")
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if "subspace" in state:
                projector = projectors.GaLoreProjector(**{name: group[name] for name in names})
                projector.ortho_matrix = state.pop("subspace")
                state["projector"] = projector
                if "step" not in group:  # a resumed run
                    group["step"] = int(state["step"])


def _pack(optimizer: Optimizer, *_: Any) -> None:
    """Keep nothing but tensors in the state."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if "projector" in state:
                # Contiguous, as a checkpoint restores it: products of a transposed matrix round differently.
                state["subspace"] = state.pop("projector").ortho_matrix.contiguous()
                state["step"] = torch.tensor(float(group["step"]))
