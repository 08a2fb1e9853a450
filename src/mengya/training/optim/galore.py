"""GaLore (Zhao et al. 2024, arXiv:2403.03507) by the library pytorch-optimizer, with state that is tensors.

AdamW in a low-rank subspace of each matrix's gradient: its moments are [rows, rank], or [rank, columns].
The library keeps the subspace in an object; between two steps we keep its tensor instead, so that
checkpoints need no pickle and a resumed run goes on bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from pydantic import Field
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from mengya.config import Config
from mengya.errors import UserError
from mengya.runtime.optional import require


class GaLoreConfig(Config):
    rank: int = Field(default=128, ge=1)
    """Dimensions of the subspace; the moments of a matrix are smaller by rank / min(rows, columns)."""
    update_every: int = Field(default=200, ge=1)
    """Steps between new subspaces, each a singular value decomposition of every gradient."""
    scale: float = Field(default=0.25, gt=0)
    """Factor of the updates, beside optimizer.lr."""


def build_galore(
    matrices: Iterable[nn.Parameter],
    config: GaLoreConfig,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> Optimizer:
    """GaLore over matrices [rows, columns].

    Raises:
        UserError: when the library is not installed, or the matrices are sharded (FSDP2).
    """
    library = require("pytorch_optimizer", "galore")
    group = {
        "params": list(matrices),
        "rank": config.rank,
        "update_proj_gap": config.update_every,
        "scale": config.scale,
        "projection_type": "std",
    }
    if any(isinstance(p, DTensor) for p in group["params"]):
        raise UserError(
            "optimizer.name=galore decomposes whole gradients, which strategy.name=fsdp shards; "
            "write strategy.name=ddp, or another optimizer"
        )
    optimizer = library.GaLore([group], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    optimizer.register_step_pre_hook(_unpack)
    optimizer.register_step_post_hook(_pack)
    return optimizer


def galore_state_shapes(shape: tuple[int, ...], rank: int) -> dict[str, tuple[int, ...]]:
    """State tensors of a matrix [O, I]: its subspace is of the shorter side, with no more than all of it."""
    O, I = shape
    rank = min(rank, O, I)
    moments, subspace = ((O, rank), (rank, I)) if O >= I else ((rank, I), (O, rank))
    return {"step": (), "exp_avg": moments, "exp_avg_sq": moments, "subspace": subspace}


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
    """Leave nothing but tensors in the state."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if "projector" in state:
                # Laid out as a checkpoint gives it back: products of a transposed matrix round otherwise.
                state["subspace"] = state.pop("projector").ortho_matrix.contiguous()
                state["step"] = torch.tensor(float(group["step"]))
