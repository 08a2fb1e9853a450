"""Optimizers over named parameters, and their state as plain tensors.

Takes a module; gives torch optimizers whose groups remember their peak rate, and a flat
name -> tensor state that safetensors can hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from mengya.config import Config, UserError
from mengya.training.muon import Muon


class OptimizerConfig(Config):
    name: Literal["adamw", "muon"] = "adamw"
    """muon: Muon (Jordan et al. 2024) for the matrices of the layers, AdamW for the rest."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW."""
    muon_lr: float = Field(default=0.02, gt=0)
    """Peak learning rate of Muon, in its own units (an update has spectral norm about 1)."""
    muon_momentum: float = Field(default=0.95, ge=0, lt=1)
    """Nesterov momentum of Muon."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled decay of matrices and embeddings; norms and biases are never decayed."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW: decay of the first moment."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW: decay of the second moment."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW: added to the root of the second moment."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this global norm."""


def build_optimizers(model: nn.Module, config: OptimizerConfig) -> list[Optimizer]:
    """One AdamW, or Muon and AdamW; frozen parameters are left out.

    Each group carries `peak_lr`, so that the schedule can set `lr` from the step alone.
    """
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    matrices = {}
    if config.name == "muon":
        matrices = {n: p for n, p in named.items() if _is_hidden_matrix(n, p)}
        if not matrices or any("lora_" in n for n in named):
            raise UserError(
                "optimizer.name=muon wants the full matrices of the layers; with LoRA use adamw"
            )
    rest = {n: p for n, p in named.items() if n not in matrices}
    groups = [
        {
            "params": [p for p in rest.values() if p.ndim >= 2],
            "weight_decay": config.weight_decay,
        },
        {"params": [p for p in rest.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    betas = (config.beta1, config.beta2)
    optimizers: list[Optimizer] = [
        torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)
    ]
    if matrices:
        optimizers.append(
            Muon(
                matrices.values(),
                lr=config.muon_lr,
                momentum=config.muon_momentum,
                weight_decay=config.weight_decay * config.lr / config.muon_lr,
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
    optimizers: Sequence[Optimizer], model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Restore what `optimizer_state` gave.

    Raises:
        UserError: when the state belongs to other parameters or another optimizer.
    """
    by_parameter: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        parameter, _, key = name.rpartition(".")
        by_parameter.setdefault(parameter, {})[key] = tensor
    trained = {p for o in optimizers for g in o.param_groups for p in g["params"]}
    expected = {n for n, p in model.named_parameters() if p in trained}
    if expected != set(by_parameter):
        odd = sorted(expected ^ set(by_parameter))[:3]
        raise UserError(
            "the checkpoint's optimizer state belongs to other parameters than this run trains "
            f"(for example {', '.join(odd)}); resume with the run's own model, lora and optimizer settings"
        )
    parameters = dict(model.named_parameters())
    for optimizer in optimizers:
        owned = {p for group in optimizer.param_groups for p in group["params"]}
        for name, state in by_parameter.items():
            parameter = parameters[name]
            if parameter in owned:
                optimizer.state[parameter] = {
                    key: value.to(parameter.device, copy=True) for key, value in state.items()
                }


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """A matrix inside a layer that maps hidden to hidden; routers and stacked experts go to AdamW."""
    gates = ("mlp.gate.weight", "shared_expert_gate.weight")
    return parameter.ndim == 2 and ".layers." in name and not name.endswith(gates)
