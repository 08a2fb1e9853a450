"""Optimizers over named parameters, and their state as plain tensors.

Takes a module; gives torch optimizers whose groups remember their peak rate, and a flat
name -> tensor state that safetensors can hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from mengya.config import Config
from mengya.errors import UserError
from mengya.training.checkpoint.tensor_files import fill, stored_tensors
from mengya.training.optim.galore import GaLoreConfig, build_galore
from mengya.training.optim.muon import Muon, MuonConfig

_GATES = ("mlp.gate.weight", "shared_expert_gate.weight")
_PAIRS = ("experts.gate_up_proj",)  # two matrices in one, the second below the first


class OptimizerConfig(Config):
    name: Literal["adamw", "muon", "normuon", "galore"] = "adamw"
    """muon, normuon and galore move the matrices of the layers (docs/optimizers.md), AdamW the rest."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled decay of matrices and embeddings; norms and biases are never decayed."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW: decay of the first moment."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW: decay of the second moment."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW: added to the root of the second moment."""
    muon: MuonConfig = MuonConfig()
    """What is different for the matrices with name=muon or normuon."""
    galore: GaLoreConfig = GaLoreConfig()
    """The subspaces of name=galore."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this global norm."""


def build_optimizers(
    model: nn.Module, config: OptimizerConfig, ranks: dist.ProcessGroup | None = None
) -> list[Optimizer]:
    """One AdamW, or AdamW and what moves the matrices; frozen parameters are left out.

    Each group carries `peak_lr`, so that the schedule can set `lr` from the step alone.

    Args:
        ranks: processes with equal gradients that may share the work of Muon.
    """
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    matrices = {} if config.name == "adamw" else hidden_matrices(named, config.name)
    rest = [p for n, p in named.items() if n not in matrices]
    decayed = {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay}
    kept = {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0}
    betas = (config.beta1, config.beta2)
    optimizers: list[Optimizer] = [
        torch.optim.AdamW(
            [g for g in (decayed, kept) if g["params"]],
            lr=config.lr, betas=betas, eps=config.eps, fused=True,
        )
    ]  # fmt: skip
    if config.name in ("muon", "normuon"):
        optimizers.append(_build_muon(matrices, config, ranks))
    elif config.name == "galore":
        optimizers.append(
            build_galore(
                matrices.values(), config.galore, config.lr, betas, config.eps, config.weight_decay
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def set_lr(optimizers: Sequence[Optimizer], factor: float) -> None:
    """Set every group's rate to `factor` of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def step_unless(not_finite: Tensor, optimizer: Optimizer) -> None:
    """`optimizer.step()` that changes nothing where `not_finite`, a fp32 scalar on the device, is 1.

    AdamW and Muon decide on the device, by the attribute that torch.amp.GradScaler has for it; for
    others (GaLore) the host has to wait.
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.found_inf = not_finite  # type: ignore[attr-defined]
        optimizer.step()
        del optimizer.found_inf  # type: ignore[attr-defined]
    elif not not_finite:
        optimizer.step()


def optimizer_state(optimizers: Sequence[Optimizer], model: nn.Module) -> dict[str, Tensor]:
    """All optimizer state as `parameter.key` -> tensor (moments in their own dtype, steps fp32).

    What is sharded comes as DTensors: whoever wants whole tensors gathers them.
    """
    names: dict[Tensor, str] = {p: n for n, p in model.named_parameters()}
    return {
        f"{names[parameter]}.{key}": torch.as_tensor(value)
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def load_optimizer_state(
    optimizers: Sequence[Optimizer], model: nn.Module, checkpoint: Path
) -> None:
    """Restore what `optimizer_state` gave, whatever strategy and number of ranks wrote it.

    Raises:
        UserError: when the state belongs to other parameters or another optimizer, or is damaged.
    """
    stored = stored_tensors(checkpoint, "optimizer")
    keys: dict[str, set[str]] = {}
    for name in stored:
        parameter, _, key = name.rpartition(".")
        keys.setdefault(parameter, set()).add(key)
    owners = {p: o for o in optimizers for g in o.param_groups for p in g["params"]}
    trained = {n: p for n, p in model.named_parameters() if p in owners}
    if trained.keys() != keys.keys():
        odd = sorted(trained.keys() ^ keys.keys())[:3]
        raise UserError(
            "the checkpoint's optimizer state belongs to other parameters than this run trains "
            f"(for example {', '.join(odd)}); resume with the run's own model, lora and optimizer settings"
        )
    places = {}
    for name, parameter in trained.items():
        for key in keys[name]:
            full = f"{name}.{key}"
            places[full] = owners[parameter].state[parameter][key] = stored[full].place(parameter)
    fill(checkpoint, "optimizer", places)


def _build_muon(
    matrices: Mapping[str, nn.Parameter], config: OptimizerConfig, ranks: dist.ProcessGroup | None
) -> Muon:
    muon = config.muon
    pairs = [p for n, p in matrices.items() if n.endswith(_PAIRS)]
    single = [p for n, p in matrices.items() if not n.endswith(_PAIRS)]
    groups = [{"params": single}, {"params": pairs, "parts": 2}]
    return Muon(
        [g for g in groups if g["params"]],
        lr=config.lr if muon.lr is None else muon.lr,
        momentum=muon.momentum,
        beta2=muon.beta2 if config.name == "normuon" else None,
        weight_decay=config.weight_decay if muon.weight_decay is None else muon.weight_decay,
        ranks=ranks,
    )


def hidden_matrices(named: Mapping[str, nn.Parameter], optimizer: str) -> dict[str, nn.Parameter]:
    """The matrices inside layers that map hidden to hidden; no routers. Stacked experts too, for Muon.

    Raises:
        UserError: when there is none, or only adapters are trained.
    """
    found = {
        n: p for n, p in named.items() if p.ndim >= 2 and ".layers." in n and not n.endswith(_GATES)
    }
    if optimizer == "galore":
        found = {n: p for n, p in found.items() if p.ndim == 2}
    if not found or any("lora_" in n for n in named):
        raise UserError(
            f"optimizer.name={optimizer} wants the full matrices of the layers; with LoRA use adamw"
        )
    return found
