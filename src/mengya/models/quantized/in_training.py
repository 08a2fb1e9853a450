"""Linear layers and experts of a model that is trained with rounded weights.

Takes the decoder layers of a model and what to round to; puts layers in the place of nn.Linear that share
parameters and names. Optimizer and checkpoints know nothing of it; `trained_weights` gives the rounded
weights for an export.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from mengya.kernels.quantized import training
from mengya.kernels.quantized.weight import QuantizedWeight, Scheme
from mengya.models.config.quantization import TrainedQuantization
from mengya.models.moe import Experts

_GATE = "shared_expert_gate"  # a router of one output


class RoundedLinear(nn.Linear):
    """A linear layer that multiplies by rounded weights; it shares the parameters of the one it replaces."""

    def __init__(self, full: nn.Linear, scheme: Scheme) -> None:
        super().__init__(full.in_features, full.out_features, bias=False, device="meta")
        self.weight, self.bias = full.weight, full.bias
        self.scheme = scheme

    def forward(self, input: Tensor) -> Tensor:
        return training.linear(input, self.weight, self.bias, self.scheme)

    def rounded_weight(self) -> Tensor:
        """The weights that `forward` multiplies by, [O, I]."""
        return training.rounded(self.weight, self.scheme)


def scheme_of(quantization: TrainedQuantization) -> Scheme:
    """What the weights are stored as."""
    ternary = quantization.number == "ternary"
    return Scheme(
        quantization.bits,
        quantization.group_size,
        number="ternary" if ternary else "int",
        activations="int8" if ternary else "full",
    )


def round_in_training(layers: nn.Module, quantization: TrainedQuantization) -> None:
    """Let every linear layer and expert of the decoder layers multiply by rounded weights, but no router."""
    scheme = scheme_of(quantization)
    for name, module in list(layers.named_modules()):
        parent, _, child = name.rpartition(".")
        if isinstance(module, Experts):
            module.scheme, module.rounds_inputs = scheme, scheme.activations == "int8"
        elif type(module) is nn.Linear and child != _GATE:
            setattr(layers.get_submodule(parent), child, RoundedLinear(module, scheme))


def trained_weights(model: nn.Module) -> dict[str, QuantizedWeight]:
    """The rounded weights, by their names on disk without `.weight`; {} of a model with full weights."""
    return dict(_trained_weights(model))


def _trained_weights(model: nn.Module) -> Iterator[tuple[str, QuantizedWeight]]:
    for name, module in model.named_modules():
        if isinstance(module, RoundedLinear):
            yield name, training.quantize(module.weight, module.scheme)[0]
        elif isinstance(module, Experts) and module.scheme is not None:
            stacks = {"gate_proj": module.gate, "up_proj": module.up, "down_proj": module.down_proj}
            for part, stack in stacks.items():
                for e, weight in enumerate(training.quantize(stack, module.scheme)):
                    yield f"{name}.{e}.{part}", weight
