"""GPTQ's layout (Frantar et al. 2022, arXiv:2210.17323) of AutoGPTQ; GPTQModel and vLLM read it.

Codes lie transposed, those of a column end to end in 32-bit words (qweight); zero points along the outputs
(qzeros); g_idx is the group of each input. `checkpoint_format` gptq (v1) stores zero points less one, so that
a zero point of 0 cannot be written: folders with zero points are written as gptq_v2, which stores them as
they are. `dynamic` has the layers that differ from the rest, as GPTQModel reads it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mengya.errors import UserError
from mengya.kernels.quantized.weight import QuantizedWeight, Scheme
from mengya.models.quantized.layouts import checks
from mengya.models.quantized.layouts.bits import pack_bits, unpack_bits, word_count
from mengya.models.quantized.layouts.layout import Stored

_MULTIPLE = 32  # of inputs and outputs, for every kernel that reads it
_ONLY = "modules_in_block_to_quantize"
_V1 = "v1"  # the `form` of zero points less one


class Gptq:
    """A `Layout`."""

    name = "gptq"
    optional: tuple[str, ...] = ("g_idx",)

    def scale_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """As `Layout.scale_dtype`: fp16 whatever the model has."""
        return torch.float16

    def check(self, stored: Stored, shape: tuple[int, int]) -> None:
        """As `Layout.check`."""
        scheme = stored.scheme
        if scheme.number != "int" or scheme.activations != "full":
            raise UserError(
                f"GPTQ's layout holds integers with activations as they are, not {scheme.number} with "
                f"activations {scheme.activations}; take the compressed-tensors layout"
            )
        if scheme.bits not in checks.BITS:
            raise UserError(f"{scheme.bits} bits are not supported (only 2, 3, 4, 8)")
        if shape[0] % _MULTIPLE or shape[1] % _MULTIPLE:
            raise UserError(
                f"GPTQ's layout needs widths that {_MULTIPLE} divides, and this matrix is {shape[0]} x "
                f"{shape[1]}; take the compressed-tensors layout"
            )
        checks.check_groups(scheme, shape)

    def to_config(self, matrices: Mapping[str, Stored], full: Sequence[str]) -> dict[str, Any]:
        """As `Layout.to_config`: values of most matrices, the others by name in `dynamic`."""
        usual, _ = Counter(map(_values, matrices.values())).most_common(1)[0]
        dynamic: dict[str, dict[str, Any]] = {
            f"-:{_exactly(name)}": {} for name in full if ".layers." in name
        }
        for name, stored in matrices.items():
            own = zip(_KEYS, _values(stored), usual, strict=True)
            if differing := {key: value for key, value, most in own if value != most}:
                dynamic[f"+:{_exactly(name)}"] = differing
        symmetric = all(stored.scheme.symmetric for stored in matrices.values())
        return {
            "quant_method": self.name,
            **dict(zip(_KEYS, usual, strict=True)),
            "checkpoint_format": "gptq" if symmetric else "gptq_v2",
            "dynamic": dynamic or None,
            "lm_head": False,
            "damp_percent": 0.01,
            "true_sequential": True,
            "pack_dtype": "int32",
        }

    def from_config(self, values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Stored]:
        """As `Layout.from_config`."""
        checks.one_of(values, "lm_head", False, None)
        checks.one_of(values, "pack_dtype", "int32", default="int32")
        format_ = values.get("checkpoint_format") or values.get("format") or "gptq"
        checks.one_of({"checkpoint_format": format_}, "checkpoint_format", "gptq", "gptq_v2")
        form = _V1 if format_ == "gptq" else ""
        rules = _rules(checks.mapping(values.get("dynamic") or {}, "dynamic"))
        only = _only(values.get(_ONLY))
        found = {}
        for name in names:
            own = _overrides(rules, name)
            if own is not None and (only is None or name.split(".", 3)[-1] in only):
                found[name] = replace(_stored({**values, **own}), form=form)
        return found

    def shapes(self, stored: Stored, shape: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """As `Layout.shapes`."""
        (O, I), bits, G = shape, stored.scheme.bits, stored.scheme.groups(shape[1])
        return {
            "qweight": (word_count(I, bits), O),
            "qzeros": (G, word_count(O, bits)),
            "scales": (G, O),
            "g_idx": (I,),
        }

    def to_tensors(
        self, weight: QuantizedWeight, stored: Stored, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """As `Layout.to_tensors`; v1 or v2 as `stored.form` says."""
        bits, I = weight.scheme.bits, weight.shape[1]
        assert weight.zero_OG is not None
        zeros_GO = weight.zero_OG.t().to(torch.int32)
        if stored.form == _V1:
            zeros_GO = (zeros_GO - 1) & ((1 << bits) - 1)
        group = weight.group_I
        if group is None:
            group = torch.arange(I) // (weight.scheme.group_size or I)
        return {
            "qweight": pack_bits(weight.codes_OI, bits).t().contiguous(),
            "qzeros": pack_bits(zeros_GO, bits),
            "scales": weight.scale_OG.t().to(torch.float16).contiguous(),
            "g_idx": group.to(torch.int32),
        }

    def from_tensors(
        self, tensors: Mapping[str, Tensor], stored: Stored, shape: tuple[int, int]
    ) -> QuantizedWeight:
        """As `Layout.from_tensors`; neighbours in groups need no g_idx, whatever desc_act says."""
        scheme, (O, I) = stored.scheme, shape
        words = checks.of_type(tensors, "qweight", torch.int32).t().contiguous()
        codes = unpack_bits(words, scheme.bits, I)
        zeros_GO = unpack_bits(checks.of_type(tensors, "qzeros", torch.int32), scheme.bits, O)
        if stored.form == _V1:
            zeros_GO = (zeros_GO + 1) & ((1 << scheme.bits) - 1)
        zero = zeros_GO.t().contiguous()
        scale = checks.scales(tensors, "scales").t().contiguous()
        if scheme.symmetric and (zero != 1 << (scheme.bits - 1)).any():
            scheme = replace(scheme, symmetric=False)
        group = None
        if "g_idx" in tensors:
            group = checks.groups(tensors["g_idx"], "g_idx", scale.shape[1])
            if group.equal(torch.arange(I, dtype=torch.int32) // (scheme.group_size or I)):
                group = None
        elif stored.ordered:
            raise UserError("desc_act is true, and g_idx is missing")
        return QuantizedWeight(scheme, codes, scale, zero, group)


_KEYS = ("bits", "group_size", "sym", "desc_act")


def _values(stored: Stored) -> tuple[int, int, bool, bool]:
    scheme = stored.scheme
    return scheme.bits, scheme.group_size or -1, scheme.symmetric, stored.ordered


def _stored(values: Mapping[str, Any]) -> Stored:
    scheme = Scheme(
        bits=checks.one_of(values, "bits", *checks.BITS),
        group_size=checks.group_size(values.get("group_size", -1)),
        symmetric=checks.one_of(values, "sym", True, False, default=True),
    )
    return Stored(scheme, checks.one_of(values, "desc_act", True, False, default=False))


def _exactly(name: str) -> str:
    return f"^{re.escape(name)}$"


_Rule = tuple[re.Pattern[str], Mapping[str, Any] | None]


def _rules(dynamic: Mapping[str, Any]) -> list[_Rule]:
    """Patterns of names, and the values of their layers; None: not quantized."""
    return [
        (
            checks.pattern(rule.removeprefix("-:").removeprefix("+:")),
            None if rule.startswith("-:") else checks.mapping(values, rule),
        )
        for rule, values in dynamic.items()
    ]


def _overrides(rules: Sequence[_Rule], name: str) -> Mapping[str, Any] | None:
    """What the first rule for a layer says; nothing without one."""
    return next((values for pattern, values in rules if pattern.match(name)), {})


def _only(names: object) -> set[str] | None:
    """Layers of a block, which a list of lists names as `self_attn.q_proj`."""
    if names is None:
        return None
    if not isinstance(names, list):
        raise UserError("modules_in_block_to_quantize must be a list of lists of names")
    return {name for group in names for name in checks.names({_ONLY: group}, _ONLY)}
