"""Quantized matrices of every scheme, with random codes."""

from __future__ import annotations

import torch
from torch import Tensor

from mengya.kernels.quantized.weight import QuantizedWeight, Scheme


def random_weight(
    scheme: Scheme, outputs: int, inputs: int, act_order: bool = False, seed: int = 0
) -> QuantizedWeight:
    """Weights of a size as in a model: of variance 1 / inputs, about."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=generator).to(torch.uint8)

    G = scheme.groups(inputs)
    scale = (1 + torch.rand(outputs, G, generator=generator)) / (2**scheme.bits * inputs**0.5)
    if scheme.number == "float8":
        codes = torch.randn(outputs, inputs, generator=generator).to(torch.float8_e4m3fn)
        return QuantizedWeight(scheme, codes, scale, None)
    ternary = scheme.number == "ternary"
    codes = draw(3 if ternary else 2**scheme.bits, outputs, inputs)
    middle = 1 if ternary else 2 ** (scheme.bits - 1)
    zero = torch.full((outputs, G), middle, dtype=torch.uint8)
    if not scheme.symmetric:
        zero = draw(2**scheme.bits, outputs, G)
    if ternary:
        scale = scale[:1].expand(outputs, -1)
    groups = None
    if act_order:
        groups = torch.arange(inputs, dtype=torch.int32) // (inputs // G)
        groups = groups[torch.randperm(inputs, generator=generator)]
    return QuantizedWeight(scheme, codes, scale, zero, groups)
