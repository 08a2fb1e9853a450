"""Merged products of quantized layers equal the layers' own, and end where a layer is replaced."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from mengya.kernels.linear import merged_linear
from mengya.kernels.quantized.merged import merge_quantized, merged_layers
from mengya.kernels.quantized.op import pack
from mengya.kernels.quantized.packed import PackedWeight
from mengya.kernels.quantized.weight import Scheme
from tests.kernels.quantized.cases import random_weight


class _Layer(nn.Module):
    def __init__(self, outputs: int, biased: bool) -> None:
        super().__init__()
        self.packed: PackedWeight = pack(
            random_weight(Scheme(4, 32), outputs, 128, seed=outputs), torch.float32
        )
        self.bias = nn.Parameter(torch.randn(outputs)) if biased else None
        self.out_features = outputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.packed(x)
        return out if self.bias is None else out + self.bias


def _block(biased: bool) -> nn.ModuleDict:
    sizes = {"q_proj": 128, "k_proj": 64, "v_proj": 64}
    return nn.ModuleDict({name: _Layer(size, biased) for name, size in sizes.items()})


def test_merged_product_equals_the_layers() -> None:
    for biased in (False, True):
        block = _block(biased)
        layers = list(block.children())
        x = torch.randn(2, 3, 128)
        apart = [layer(x) for layer in layers]
        size = sum(t.nbytes for t in block.buffers())
        merge_quantized([block])
        assert merged_layers(x, *layers) is not None
        for a, b in zip(merged_linear(x, *cast(list[nn.Linear], layers)), apart, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        for layer, b in zip(layers, apart, strict=True):
            torch.testing.assert_close(layer(x), b, rtol=0, atol=0)
        assert sum(t.nbytes for t in block.buffers()) == size
        twin = copy.deepcopy(block)
        assert merged_layers(x, *twin.children()) is merged_layers(x, *layers)


def test_an_adapter_in_the_place_of_a_layer_ends_it() -> None:
    block = _block(False)
    merge_quantized([block])
    q, k, v = block.children()
    x = torch.randn(1, 128)
    assert merged_layers(x, q, nn.Linear(128, 64), v) is None
    assert merged_layers(x, nn.Linear(128, 128), k, v) is None
    assert merged_layers(x.to("meta"), q, k, v) is None
