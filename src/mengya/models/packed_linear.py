"""Linear layers in the blocked weight layout of oneDNN, for inference in fp32 on a CPU.

Takes a model; gives one that shares its parameters but multiplies with a second, packed copy of
them, layers of one input at once. With a few rows (decoding) the plain layout runs at half the speed,
and on one core only.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from mengya.models.causal_lm import CausalLM

_ROWS = 8  # the number of rows that the layout is chosen for; others run as fast with it


class PackedLinear(nn.Linear):
    """The same function as `linear`, whose parameters it shares; they must not change afterwards.

    Attributes:
        joined: how many layers `product` computes: `linear` and those beside it.
    """

    def __init__(self, linear: nn.Linear, *beside: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        layers = (linear, *beside)
        self.joined = len(layers)
        weight = torch.cat([layer.weight.detach() for layer in layers])
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self._bias = torch.cat(biases) if biases else None

    def product(self, x: Tensor) -> Tensor:
        """The outputs of all joined layers side by side."""
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")

    def forward(self, input: Tensor) -> Tensor:
        product = self.product(input)
        return product if self.joined == 1 else product[..., : self.out_features]


def layers_of_one_input(model: nn.Module) -> Iterator[tuple[nn.Module, str, list[nn.Linear]]]:
    """Plain layers that multiply the same input: the module that holds them, the first one's name, all."""
    for module in list(model.modules()):
        for names in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
            layers = [getattr(module, name, None) for name in names]
            if all(type(layer) is nn.Linear for layer in layers):
                yield module, names[0], cast(list[nn.Linear], layers)


def packing_runs(model: CausalLM) -> bool:
    """fp32 on a CPU whose PyTorch has oneDNN."""
    weight = model.lm_head.weight
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


@torch.no_grad()
def pack_linears(model: CausalLM) -> CausalLM:
    """A model with the same parameters and packed linear layers; `model` itself stays as it is.

    Experts of a mixture are no linear layers and stay plain. Needs `packing_runs(model)`.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    packed = copy.deepcopy(model, shared)
    joined: set[nn.Module] = set()
    for holder, first, layers in layers_of_one_input(packed):
        setattr(holder, first, PackedLinear(*layers))
        joined.update(layers)
    for name, module in list(packed.named_modules()):
        if type(module) is nn.Linear and module not in joined:
            parent, _, child = name.rpartition(".")
            setattr(packed.get_submodule(parent), child, PackedLinear(module))
    return cast("CausalLM", packed)
