"""Quantized layers of the same input as one product: q, k and v, gate and up.

A step of decoding is then four products a layer, not seven. The layers keep their names and share the
memory of the merged matrix. Inference alone: weights must not change afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mengya.kernels.quantized.packed import PackedWeight

_MERGED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


@dataclass(frozen=True, eq=False)
class MergedLayers:
    """The product of some layers; kept by the first of them, outside of its parameters and buffers."""

    packed: PackedWeight
    bias: Tensor | None
    device: torch.device

    def __call__(self, x: Tensor) -> Tensor:
        out = self.packed(x)
        return out if self.bias is None else out + self.bias

    def __deepcopy__(self, memo: dict[int, Any]) -> MergedLayers:
        """A copy of a model shares it, as it shares the weights."""
        return self


@torch.no_grad()
def merge_quantized(modules: Iterable[nn.Module]) -> None:
    """Merge the quantized layers that are children of one module, where their layouts allow it."""
    for module in modules:
        for names in _MERGED:
            layers = [getattr(module, name, None) for name in names]
            weights = [getattr(layer, "packed", None) for layer in layers]
            if all(isinstance(weight, PackedWeight) for weight in weights):
                _merge(layers, weights)


def _merge(layers: Sequence[Any], weights: Sequence[Any]) -> None:
    first = weights[0]
    packed = first.merge(weights[1:])
    biases = [layer.bias for layer in layers if layer.bias is not None]
    if packed is not None and len(biases) in (0, len(layers)):
        bias = torch.cat(biases) if biases else None
        device = next(packed.buffers()).device
        layers[0].__dict__["merged"] = MergedLayers(packed, bias, device)


def merged_layers(x: Tensor, *layers: nn.Module) -> MergedLayers | None:
    """What `merge_quantized` made of the layers; None where one was replaced, or moved elsewhere."""
    merged = layers[0].__dict__.get("merged")
    if merged is None or merged.device != x.device:
        return None
    for layer in layers:
        if type(layer) is not type(layers[0]):
            return None
    return merged
