"""Several linear layers of one input as one matrix product, over parameters that stay apart.

Takes hidden states and layers; gives each layer's output. One wide product runs nearer to the peak of
a GPU than three narrow ones, while checkpoints, optimizers and adapters go on seeing q, k, v, gate and
up under their standard names.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def merges(x: Tensor, *layers: nn.Module) -> bool:
    """Whether `merged_product` pays: training on CUDA, and no adapter in the place of a layer.

    The weights are laid end to end for it, a copy that decoding a few tokens would not earn back.
    """
    return x.is_cuda and torch.is_grad_enabled() and all(type(m) is nn.Linear for m in layers)


def merged_product(x: Tensor, *layers: nn.Linear) -> Tensor:
    """The layers' outputs side by side, [..., sum of out_features]; all have a bias, or none."""
    weight = torch.cat(tuple(layer.weight for layer in layers))
    biases = tuple(layer.bias for layer in layers if layer.bias is not None)
    return F.linear(x, weight, torch.cat(biases) if biases else None)


def merged_linear(x: Tensor, *layers: nn.Linear) -> Sequence[Tensor]:
    """`[layer(x) for layer in layers]`, each [..., out_features of the layer]."""
    if not merges(x, *layers):
        return [layer(x) for layer in layers]
    return merged_product(x, *layers).split([layer.out_features for layer in layers], dim=-1)
