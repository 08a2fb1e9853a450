"""Several linear layers of one input as one matrix product, over parameters that stay apart.

Takes hidden states and layers; gives each layer's output. One wide product runs nearer to the peak of
a GPU than three narrow ones, while checkpoints, optimizers and adapters go on seeing q, k, v, gate and
up under their standard names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def merges(x: Tensor, *layers: nn.Module) -> bool:
    """Whether `merged_product` pays: on CUDA, and no adapter in the place of a layer.

    The weights are laid end to end for it, a copy that decoding a few tokens would not earn back:
    without gradients it pays only where they lie so already.
    """
    if not x.is_cuda or any(type(m) is not nn.Linear for m in layers):
        return False
    return torch.is_grad_enabled() or _joined_weight(*layers) is not None


def merged_product(x: Tensor, *layers: nn.Linear) -> Tensor:
    """The layers' outputs side by side, [..., sum of out_features]; all have a bias, or none."""
    weight = None if torch.is_grad_enabled() else _joined_weight(*layers)
    if weight is None:
        weight = torch.cat(tuple(layer.weight for layer in layers))
    biases = tuple(layer.bias for layer in layers if layer.bias is not None)
    return F.linear(x, weight, torch.cat(biases) if biases else None)


def merged_linear(x: Tensor, *layers: nn.Linear) -> Sequence[Tensor]:
    """`[layer(x) for layer in layers]`, each [..., out_features of the layer]."""
    if not merges(x, *layers):
        return [layer(x) for layer in layers]
    return merged_product(x, *layers).split([layer.out_features for layer in layers], dim=-1)


@torch.no_grad()
def lay_end_to_end(model: nn.Module) -> None:
    """Move the weights that are multiplied with the same input next to each other in memory.

    Parameters stay what they are, with their names and values. Who moves them afterwards (`.to`)
    only loses the speed.
    """
    for module in model.modules():
        for names in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
            layers = [getattr(module, name, None) for name in names]
            if all(type(layer) is nn.Linear for layer in layers):
                weights = [cast(nn.Linear, layer).weight for layer in layers]
                parts = torch.cat(weights).split([len(weight) for weight in weights])
                for weight, part in zip(weights, parts, strict=True):
                    weight.data = part


def _joined_weight(*layers: nn.Module) -> Tensor | None:
    """The layers' weights as one, without a copy; None where they do not lie end to end."""
    if torch.compiler.is_compiling():  # the compiler knows no addresses
        return None
    first = cast(nn.Linear, layers[0]).weight
    storage, rows, end = first.untyped_storage().data_ptr(), 0, first.storage_offset()
    for layer in layers:
        weight = cast(nn.Linear, layer).weight
        here = weight.storage_offset() == end and weight.untyped_storage().data_ptr() == storage
        if not here or not weight.is_contiguous():
            return None
        rows, end = rows + len(weight), end + weight.numel()
    return first.as_strided((rows, first.shape[1]), (first.shape[1], 1))
