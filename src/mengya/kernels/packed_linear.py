"""Linear layers in the blocked weight layout of oneDNN, for inference in fp32 on a CPU.

Takes a model; gives one that shares its parameters but multiplies with a second, packed copy of
them. With a few rows (decoding) the plain layout runs at half the speed, and on one core only.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

_ROWS = 8  # the number of rows that the layout is chosen for; others run as fast with it


class PackedLinear(nn.Linear):
    """The same function as `linear`, whose parameters it shares; they must not change afterwards."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)

    def forward(self, input: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(input, self._packed, self.bias, "none", [], "")


def packing_runs(model: nn.Module) -> bool:
    """fp32 on a CPU whose PyTorch has oneDNN."""
    weight = model.get_parameter("lm_head.weight")
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


@torch.no_grad()
def pack_linears(model: M) -> M:
    """A model with the same parameters and packed linear layers; `model` itself stays as it is.

    Experts of a mixture are no linear layers and stay plain. Needs `packing_runs(model)`.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    packed = copy.deepcopy(model, shared)
    for name, module in list(packed.named_modules()):
        if type(module) is nn.Linear:
            parent, _, child = name.rpartition(".")
            setattr(packed.get_submodule(parent), child, PackedLinear(module))
    return packed
