"""What a quantized folder takes in memory, without reading its weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from mengya.kernels.quantized.op import PackedWeight, pack
from mengya.kernels.quantized.weight import QuantizedWeight, Scheme
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.quantized.folder import read_quantization
from mengya.models.quantized.load import put_layers


class _Size(PackedWeight):
    """The bytes of a packed weight, as a buffer on the meta device."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("taken", torch.empty(count, dtype=torch.uint8, device="meta"))


def quantized_on_meta(
    directory: Path, config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> CausalLM:
    """The model that `load_quantized` gives, on the meta device, with buffers of the sizes of `device`.

    Raises:
        UserError: config.json says what is not supported.
    """
    _, stored, shapes = read_quantization(directory, config)
    model = CausalLM(config, device="meta").to(dtype)
    put_layers(model, stored)
    for name, one in stored.items():
        layer = model.get_submodule(name)
        if hasattr(layer, "packed"):
            size = _packed_bytes(one.scheme, shapes[name], one.ordered, dtype, device)
            layer.packed = _Size(size)
    return model


@cache
def _packed_bytes(
    scheme: Scheme, shape: tuple[int, int], ordered: bool, dtype: torch.dtype, device: torch.device
) -> int:
    """Of a matrix of zeros, packed there: a kernel may keep it in any form."""
    (O, I), G = shape, scheme.groups(shape[1])
    codes = torch.zeros(O, I, dtype=torch.uint8, device=device)
    scale = torch.ones(O, G, device=device)
    zero = torch.full((O, G), 1 << (scheme.bits - 1), dtype=torch.uint8, device=device)
    if scheme.number == "float8":
        weight = QuantizedWeight(scheme, codes.to(torch.float8_e4m3fn), scale, None)
    else:
        group = torch.arange(I, dtype=torch.int32, device=device) % G if ordered else None
        weight = QuantizedWeight(scheme, codes, scale, zero, group)
    packed = pack(weight, dtype)
    return sum(tensor.nbytes for tensor in (*packed.parameters(), *packed.buffers()))
