"""Optimizers over named parameters, and their state as plain tensors.

Takes a module; gives torch optimizers whose groups remember their peak rate, and a flat
name -> tensor state that safetensors can hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from mengya.errors import UserError
from mengya.training.checkpoint.tensor_files import fill, stored_tensors
from mengya.training.optim.config import OptimizerConfig
from mengya.training.optim.registry import MATRIX_OPTIMIZERS

_GATES = ("mlp.gate.weight", "shared_expert_gate.weight")


def build_optimizers(
    model: nn.Module, config: OptimizerConfig, dp_group: dist.ProcessGroup | None = None
) -> list[Optimizer]:
    """AdamW, and the optimizer of the matrices where one is named; frozen parameters are skipped.

    Each group carries `peak_lr`, so that the schedule can set `lr` from the step alone.

    Args:
        dp_group: processes with equal gradients that may share the work of orthogonalizing.
    """
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    matrices = hidden_matrices(named, config.name)
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
    if config.name in MATRIX_OPTIMIZERS:
        optimizers.append(MATRIX_OPTIMIZERS[config.name].build(matrices, config, dp_group))
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
    others the host has to wait.
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.found_inf = not_finite  # type: ignore[attr-defined]
        optimizer.step()
        del optimizer.found_inf  # type: ignore[attr-defined]
    elif not not_finite:
        optimizer.step()


def optimizer_state(optimizers: Sequence[Optimizer], model: nn.Module) -> dict[str, Tensor]:
    """All optimizer state as `parameter.key` -> tensor (moments in their own dtype, steps fp32).

    Sharded state comes as DTensors.
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
            f"(for example {', '.join(odd)}); resume with the run's own model, lora and optimizer "
            "settings"
        )
    places = {}
    for name, parameter in trained.items():
        for key in keys[name]:
            full = f"{name}.{key}"
            places[full] = owners[parameter].state[parameter][key] = stored[full].place(parameter)
    fill(checkpoint, "optimizer", places)


def hidden_matrices(named: Mapping[str, nn.Parameter], optimizer: str) -> dict[str, nn.Parameter]:
    """The matrices inside layers, hidden to hidden, that this optimizer.name updates; no routers.

    Raises:
        UserError: there are none, or only adapters are trained.
    """
    if optimizer not in MATRIX_OPTIMIZERS:
        return {}
    stacks = MATRIX_OPTIMIZERS[optimizer].takes_stacks
    found = {
        n: p
        for n, p in named.items()
        if ".layers." in n and not n.endswith(_GATES) and (p.ndim == 2 or (stacks and p.ndim > 2))
    }
    if not found or any("lora_" in n for n in named):
        raise UserError(
            f"optimizer.name={optimizer} needs the full matrices of the layers; with LoRA use adamw"
        )
    return found
