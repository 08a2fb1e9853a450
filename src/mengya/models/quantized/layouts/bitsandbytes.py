"""LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339) as bitsandbytes keeps it, which transformers reads.

`weight` in int8 and SCB, the largest magnitude of each row: weight / 127 * SCB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mengya.errors import UserError, shown
from mengya.kernels.quantized.weight import Activations, QuantizedWeight, Scheme
from mengya.models.quantized.layouts import checks
from mengya.models.quantized.layouts.layout import Stored

_LARGEST, _CENTRE = 127, 128
_THRESHOLD = 6.0


class Bitsandbytes:
    """A `Layout`."""

    name = "bitsandbytes"
    optional: tuple[str, ...] = ("weight_format",)

    def scale_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """As `Layout.scale_dtype`."""
        return torch.float32

    def check(self, stored: Stored, shape: tuple[int, int]) -> None:
        """As `Layout.check`."""
        scheme = stored.scheme
        rows = scheme.group_size is None and not stored.ordered
        int8 = (scheme.number, scheme.bits, scheme.symmetric) == ("int", 8, True)
        if not (rows and int8 and scheme.activations in ("int8_outliers", "int8")):
            raise UserError(
                "bitsandbytes' layout holds LLM.int8 alone: 8 bits, symmetric, a scale for each row; take "
                "the compressed-tensors layout"
            )

    def to_config(self, matrices: Mapping[str, Stored], full: Sequence[str]) -> dict[str, Any]:
        """As `Layout.to_config`."""
        if experts := [name for name in matrices if ".mlp.experts." in name]:
            raise UserError(
                f"{experts[0]}: bitsandbytes' layout holds linear layers, and transformers keeps experts "
                "otherwise; take the compressed-tensors layout"
            )
        kinds = {stored.scheme.activations for stored in matrices.values()}
        if len(kinds) > 1:
            raise UserError("bitsandbytes' layout has one threshold for outliers in all layers")
        return {
            "quant_method": self.name,
            "load_in_8bit": True,
            "load_in_4bit": False,
            "llm_int8_threshold": _THRESHOLD if kinds == {"int8_outliers"} else 0.0,
            "llm_int8_has_fp16_weight": False,
            "llm_int8_enable_fp32_cpu_offload": False,
            "llm_int8_skip_modules": list(full),
        }

    def from_config(self, values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Stored]:
        """As `Layout.from_config`."""
        if values.get("load_in_4bit"):
            kind = values.get("bnb_4bit_quant_type", "fp4")
            raise UserError(
                f"bitsandbytes' 4-bit weights ({shown(kind)}) are not supported, only its 8-bit ones "
                "(load_in_8bit)"
            )
        checks.one_of(values, "load_in_8bit", True)
        checks.one_of(values, "llm_int8_has_fp16_weight", False, default=False)
        threshold = checks.one_of(values, "llm_int8_threshold", _THRESHOLD, 0.0, default=_THRESHOLD)
        activations: Activations = "int8_outliers" if threshold else "int8"
        stored = Stored(Scheme(8, activations=activations))
        # As transformers reads the list: the end of a name, or a pattern of its first parts.
        skipped = checks.names(values, "llm_int8_skip_modules")
        patterns = [checks.pattern(rf"(?:{entry})(?:(?<=\.)|(?=\.|$))") for entry in skipped]
        return {
            name: stored
            for name in names
            if not name.endswith(tuple(skipped)) and not any(p.match(name) for p in patterns)
        }

    def shapes(self, stored: Stored, shape: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """As `Layout.shapes`."""
        return {"weight": shape, "SCB": (shape[0],), "weight_format": ()}

    def to_tensors(
        self, weight: QuantizedWeight, stored: Stored, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """As `Layout.to_tensors`."""
        return {
            "weight": (weight.codes_OI.to(torch.int16) - _CENTRE).to(torch.int8),
            "SCB": weight.scale_OG[:, 0].float() * _LARGEST,
            "weight_format": torch.tensor(0, dtype=torch.uint8),  # rows, as PyTorch has them
        }

    def from_tensors(
        self, tensors: Mapping[str, Tensor], stored: Stored, shape: tuple[int, int]
    ) -> QuantizedWeight:
        """As `Layout.from_tensors`."""
        if int(tensors.get("weight_format", torch.tensor(0))):
            raise UserError(
                "weight_format is that of an old GPU kernel; save the model again with 0.45+"
            )
        codes = checks.of_type(tensors, "weight", torch.int8).to(torch.int16) + _CENTRE
        scale = checks.scales(tensors, "SCB")[:, None] / _LARGEST
        zero = torch.full_like(scale, _CENTRE, dtype=torch.uint8)
        return QuantizedWeight(stored.scheme, codes.to(torch.uint8), scale, zero)
