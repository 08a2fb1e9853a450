"""Products with a quantized matrix, by the fastest kernel that the device has for its scheme.

`pack` turns a `QuantizedWeight` into the layout of a kernel; the result is a module, so that moving it,
counting its bytes and sharing it work as for any layer.

| weights | inputs | CPU (AVX2, AVX-512) | CUDA |
|---|---|---|---|
| 2, 3, 4, 8 bits, ternary; groups of 32 n or a row | full | cpu_int4 | word_weight |
| 8 bits, a row, symmetric | full | cpu_int8 | word_weight |
| 8 bits or ternary, a row, symmetric | int8, int8_outliers | integer product (VNNI) | integer product |
| float8, a row | float8 | reference | float8 product |
| any other | rounded | rounded inputs, then as for full ones | the same |
| any other, and CPUs of other kinds | full | reference: full weights | the same |

Groups need not be neighbours (activation order): columns are stored group by group, inputs are put in that
order. Groups of 16 are for word_weight alone; unequal groups and float8 weights with full inputs are rare
and go to the reference.
"""

from __future__ import annotations

import torch

from mengya.kernels.quantized import cpu_int4, cpu_int8, rounded_inputs, word_weight
from mengya.kernels.quantized.packed import DequantizedWeight, PackedWeight
from mengya.kernels.quantized.weight import QuantizedWeight

__all__ = ["DequantizedWeight", "PackedWeight", "pack"]


def pack(weight: QuantizedWeight, dtype: torch.dtype) -> PackedWeight:
    """`weight` on its device, for inputs of `dtype`."""
    if weight.scheme.activations == "full":
        return _pack_full(weight, dtype)
    product = rounded_inputs.pack_product(weight)
    if product is not None:
        return product
    inner = _pack_full(rounded_inputs.full_inputs(weight), dtype)
    return rounded_inputs.RoundedInputs(weight.scheme, inner)


def _pack_full(weight: QuantizedWeight, dtype: torch.dtype) -> PackedWeight:
    if word_weight.is_supported(weight, dtype):
        return word_weight.WordWeight(weight)
    if cpu_int8.is_supported(weight):
        return cpu_int8.Int8Weight(weight)
    if cpu_int4.is_supported(weight):
        return cpu_int4.Int4Weight(weight)
    return DequantizedWeight(weight, dtype)
