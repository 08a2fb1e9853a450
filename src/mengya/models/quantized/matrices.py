"""Which matrices of a model are quantized: every linear layer inside the decoder layers, every expert's.

Takes a configuration; gives names as on disk, experts one by one. Never embedding, output layer, norms,
routers and the gate of a shared expert: they are small, or of too much consequence.
"""

from __future__ import annotations

from torch import nn

from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.moe import Experts
from mengya.models.router import Router

_SHARED_GATE = "shared_expert_gate"


def matrix_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of each matrix that is quantized, by name without `.weight`, layer by layer."""
    shapes: dict[str, tuple[int, int]] = {}
    for name, module in CausalLM(config, device="meta").named_modules():
        if isinstance(module, Experts):
            E, H, width = module.down_proj.shape
            for e in range(E):
                shapes |= {f"{name}.{e}.{part}": (width, H) for part in ("gate_proj", "up_proj")}
                shapes[f"{name}.{e}.down_proj"] = (H, width)
        elif isinstance(module, nn.Linear) and not _stays_full(name):
            shapes[name] = (module.out_features, module.in_features)
    return shapes


def full_layers(config: ModelConfig) -> list[str]:
    """Linear layers that are never quantized; routers are linear layers to other programs."""
    return [
        name
        for name, module in CausalLM(config, device="meta").named_modules()
        if isinstance(module, Router) or (isinstance(module, nn.Linear) and _stays_full(name))
    ]


def _stays_full(name: str) -> bool:
    return name == "lm_head" or name.endswith(_SHARED_GATE)
