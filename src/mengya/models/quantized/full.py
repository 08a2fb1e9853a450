"""A model that was trained with rounded weights, with these in the place of the full ones.

Takes a model, in fp32 so that the codes are those of training; changes it in place. For use its ternary
layers still round their inputs; for formats that know no rounding they do not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mengya.kernels.quantized.training import rounded_inputs
from mengya.models.causal_lm import CausalLM
from mengya.models.moe import Experts
from mengya.models.quantized.in_training import RoundedLinear


class RoundedInputsLinear(nn.Linear):
    """A linear layer with inputs of 8 bits; it shares the parameters of the one that it replaces."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(rounded_inputs(input), self.weight, self.bias)


def fix_weights(model: CausalLM) -> CausalLM:
    """Round the weights once and for all, for inference; a model with full weights stays as it is."""
    return _replace(model, keep_inputs=True)


def full_weights(model: CausalLM) -> CausalLM:
    """As `fix_weights`, and an ordinary model: ternary weights lose the rounding of their inputs."""
    return _replace(model, keep_inputs=False)


def rounds(model: nn.Module) -> bool:
    """Whether a model rounds weights or inputs when it computes."""
    layers = (RoundedLinear, RoundedInputsLinear)
    return any(
        isinstance(m, layers) or (isinstance(m, Experts) and (m.scheme or m.rounds_inputs))
        for m in model.modules()
    )


@torch.no_grad()
def _replace(model: CausalLM, keep_inputs: bool) -> CausalLM:
    for name, module in list(model.model.layers.named_modules()):
        if isinstance(module, Experts):
            _fix_experts(module, keep_inputs)
            continue
        if not isinstance(module, RoundedLinear | RoundedInputsLinear):
            continue
        plain = _plain(module)
        ternary = isinstance(module, RoundedInputsLinear) or module.scheme.number == "ternary"
        parent, _, child = name.rpartition(".")
        layer = RoundedInputsLinear(plain) if keep_inputs and ternary else plain
        setattr(model.model.layers.get_submodule(parent), child, layer)
    model.config = model.config.model_copy(update={"quantization": None})
    return model


def _plain(layer: RoundedLinear | RoundedInputsLinear) -> nn.Linear:
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain.weight, plain.bias = layer.weight, layer.bias
    if isinstance(layer, RoundedLinear):
        plain.weight.copy_(layer.rounded_weight())
    return plain


def _fix_experts(experts: Experts, keep_inputs: bool) -> None:
    gate_up, down = experts.weights()
    experts.gate_up_proj.copy_(gate_up)
    experts.down_proj.copy_(down)
    experts.scheme, experts.rounds_inputs = None, experts.rounds_inputs and keep_inputs
