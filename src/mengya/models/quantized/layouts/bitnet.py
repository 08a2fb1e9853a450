"""BitNet's layout of ternary weights (Ma et al. 2024, arXiv:2402.17764), as transformers reads it.

Four codes of 2 bits a byte: byte r of a column holds rows r, r + O/4, r + O/2 and r + 3O/4, low bits first.
One scale a matrix, `weight_scale`: by the class that `linear_class` names it is what sums are divided by
(bitlinear) or multiplied by (autobitlinear). Written for bitlinear: the other multiplies biases too.
Inputs are rounded to 8 bits at run time, with a scale for each token. With `quantization_mode` online
the weights are full, and that is no layout (hf/trained_quantization.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mengya.errors import UserError
from mengya.kernels.quantized.weight import QuantizedWeight, Scheme
from mengya.models.quantized.layouts import checks
from mengya.models.quantized.layouts.layout import Stored

TERNARY = Scheme(2, number="ternary", activations="int8")
_A_BYTE = 4
_DIVIDES, _MULTIPLIES = "bitlinear", "autobitlinear"


class Bitnet:
    """A `Layout`; `Stored.form` is the linear_class."""

    name = "bitnet"
    optional: tuple[str, ...] = ()

    def scale_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """As `Layout.scale_dtype`: that of the model, in which transformers holds them."""
        return dtype

    def check(self, stored: Stored, shape: tuple[int, int]) -> None:
        """As `Layout.check`."""
        if stored.scheme != TERNARY:
            raise UserError(
                f"the bitnet layout holds ternary weights alone, not {stored.scheme.number} of "
                f"{stored.scheme.bits} bits; take the compressed-tensors layout"
            )
        if shape[0] % _A_BYTE:
            raise UserError(
                f"the bitnet layout needs outputs that {_A_BYTE} divides, and this matrix has {shape[0]}; "
                "train with widths that it divides"
            )

    def to_config(self, matrices: Mapping[str, Stored], full: Sequence[str]) -> dict[str, Any]:
        """As `Layout.to_config`."""
        if experts := [name for name in matrices if ".mlp.experts." in name]:
            raise UserError(
                f"transformers has no BitNet experts ({experts[0]}): a mixture stays as it was trained, its "
                "folder is read here with its weights rounded; or export it: mengya export to=gguf type=TQ2_0"
            )
        return {
            "quant_method": self.name,
            "linear_class": _DIVIDES,
            "quantization_mode": "offline",
            "use_rms_norm": False,
            "modules_to_not_convert": list(full),
        }

    def from_config(self, values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Stored]:
        """As `Layout.from_config`."""
        form = checks.one_of(values, "linear_class", _DIVIDES, _MULTIPLIES, default=_DIVIDES)
        checks.one_of(values, "quantization_mode", "offline", default="offline")
        checks.one_of(values, "use_rms_norm", False, None, default=False)
        kept = set(values.get("modules_to_not_convert") or [])
        return {
            name: Stored(TERNARY, form=form)
            for name in names
            if not any(name == one or name.endswith(f".{one}") for one in kept)
        }

    def shapes(self, stored: Stored, shape: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """As `Layout.shapes`."""
        return {"weight": (shape[0] // _A_BYTE, shape[1]), "weight_scale": (1,)}

    def to_tensors(
        self, weight: QuantizedWeight, stored: Stored, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """As `Layout.to_tensors`."""
        parts = weight.codes_OI.chunk(_A_BYTE)
        packed = sum(part << 2 * place for place, part in enumerate(parts))
        assert isinstance(packed, Tensor)
        scale = weight.scale_OG[:1, 0]
        return {
            "weight": packed,
            "weight_scale": (scale if stored.form == _MULTIPLIES else 1 / scale).to(dtype),
        }

    def from_tensors(
        self, tensors: Mapping[str, Tensor], stored: Stored, shape: tuple[int, int]
    ) -> QuantizedWeight:
        """As `Layout.from_tensors`."""
        packed = checks.of_type(tensors, "weight", torch.uint8)
        codes = torch.cat([packed >> 2 * place & 3 for place in range(_A_BYTE)])
        if (codes == 3).any():
            raise UserError("weight holds the code 3, and ternary weights have 0, 1 and 2")
        scale = checks.scales(tensors, "weight_scale")
        if not scale > 0:
            raise UserError(f"weight_scale is {scale.item():g}, and it must be above 0")
        scale_OG = (scale if stored.form == _MULTIPLIES else 1 / scale).expand(shape[0], 1)
        zero_OG = torch.ones(shape[0], 1, dtype=torch.uint8)
        return QuantizedWeight(stored.scheme, codes, scale_OG.contiguous(), zero_OG)
