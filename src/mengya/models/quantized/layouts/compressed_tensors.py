"""compressed-tensors, the layout of llm-compressor and vLLM; transformers reads it with that package.

Three forms of the same tensors: `pack-quantized` (weight_packed, codes in 32-bit words), `int-quantized`
and `float-quantized` (weight in int8 or fp8). Integers are signed on disk, ours count from 0.
Written for compressed-tensors 0.20: 3 bits as there (old versions left 2 bits of a word empty), and no
groups by activation order, which it no longer reads. Folders of others that have them are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mengya.errors import UserError, shown
from mengya.kernels.quantized.weight import Activations, QuantizedWeight, Scheme
from mengya.models.quantized.layouts import checks
from mengya.models.quantized.layouts.bits import pack_bits, unpack_bits, word_count
from mengya.models.quantized.layouts.layout import Stored

_PACKED, _INT, _FLOAT = "pack-quantized", "int-quantized", "float-quantized"
_FORMS = {_PACKED: _PACKED, _INT: _INT, _FLOAT: _FLOAT, "naive-quantized": _INT}
# Of the experts' group; transformers, where they are one tensor, looks for a pattern with this word.
_EXPERTS, _PATTERN = ".mlp.experts.", "re:"
_ALL_EXPERTS = rf"{_PATTERN}.*\.mlp\.experts\..*"
_GROUPED = ("group", "dynamic")  # values of actorder that keep a group for each column
# What would change the weights or the sums, and is not computed here.
_UNKNOWN = ("kv_cache_scheme", "sparsity_config", "transform_config")


class CompressedTensors:
    """A `Layout`."""

    name = "compressed-tensors"
    optional: tuple[str, ...] = ()

    def scale_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """As `Layout.scale_dtype`: that of the model, in which readers hold them."""
        return dtype

    def check(self, stored: Stored, shape: tuple[int, int]) -> None:
        """As `Layout.check`."""
        scheme = stored.scheme
        if scheme.number == "ternary":
            raise UserError("compressed-tensors has no ternary weights; take the bitnet layout")
        if scheme.activations == "int8_outliers":
            raise UserError(
                "compressed-tensors has no activations with outliers; take the bitsandbytes layout"
            )
        wanted = {"full": None, "int8": ("int", 8), "float8": ("float8", 8)}[scheme.activations]
        if wanted is not None and (scheme.number, scheme.bits) != wanted:
            raise UserError(
                f"activations in {scheme.activations} need weights in {wanted[0]} with 8 bits, these have "
                f"{scheme.bits} ({scheme.number})"
            )
        if scheme.bits not in checks.BITS or (scheme.number == "float8" and scheme.bits != 8):
            raise UserError(f"{scheme.bits} bits ({scheme.number}) are not supported")
        if stored.ordered:
            raise UserError(
                "compressed-tensors 0.20 reads no groups by activation order; order the columns within "
                "their groups, or take the gptq layout"
            )
        checks.check_groups(scheme, shape)

    def to_config(self, matrices: Mapping[str, Stored], full: Sequence[str]) -> dict[str, Any]:
        """As `Layout.to_config`: the scheme of most matrices is that of all linear layers."""
        targets = _targets(matrices)
        groups = {f"group_{i}": _group(*one) for i, one in enumerate(targets.items())}
        forms = {group["format"] for group in groups.values()}
        config = {
            "quant_method": self.name,
            "format": forms.pop() if len(forms) == 1 else "mixed-precision",
            "quantization_status": "compressed",
            "config_groups": groups,
            "ignore": list(full),
            "kv_cache_scheme": None,
            "global_compression_ratio": None,
        }
        # transformers 5.23 has no place for packed zero points unless it makes the weights full at once,
        # and then takes one group for all.
        if len(groups) == 1 and not all(s.scheme.symmetric for s in matrices.values()):
            config["dequantize"] = True
        return config

    def from_config(self, values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Stored]:
        """As `Layout.from_config`."""
        checks.one_of(values, "quantization_status", "compressed", default="compressed")
        if unknown := [key for key in _UNKNOWN if values.get(key)]:
            raise UserError(
                f"{unknown[0]} {shown(values[unknown[0]])} is not supported (only null)"
            )
        by_target: dict[str, Stored] = {}
        groups = checks.mapping(values.get("config_groups"), "config_groups")
        for key, group in groups.items():
            stored = _stored(checks.mapping(group, key), values.get("format"))
            for target in checks.names(group, "targets"):
                by_target.setdefault(target, stored)
        wanted, ignored = _Targets(by_target), _Targets(checks.names(values, "ignore"))
        targets = {name: wanted.find(name) for name in names if ignored.find(name) is None}
        return {name: by_target[target] for name, target in targets.items() if target is not None}

    def shapes(self, stored: Stored, shape: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """As `Layout.shapes`."""
        (O, I), bits = shape, stored.scheme.bits
        G = stored.scheme.groups(I)
        found: dict[str, tuple[int, ...]] = {"weight_scale": (O, G)}
        packed = _form(stored) == _PACKED
        if packed:
            found |= {"weight_packed": (O, word_count(I, bits)), "weight_shape": (2,)}
        else:
            found["weight"] = (O, I)
        if not stored.scheme.symmetric:
            found["weight_zero_point"] = (word_count(O, bits), G) if packed else (O, G)
        if stored.ordered:
            found["weight_g_idx"] = (I,)
        return found

    def to_tensors(
        self, weight: QuantizedWeight, stored: Stored, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """As `Layout.to_tensors`."""
        scheme, bits = weight.scheme, weight.scheme.bits
        tensors = {"weight_scale": weight.scale_OG.to(dtype)}
        if scheme.number == "float8":
            return tensors | {"weight": weight.codes_OI}
        packed = _form(stored) == _PACKED
        if packed:
            tensors["weight_packed"] = pack_bits(weight.codes_OI, bits)
            tensors["weight_shape"] = torch.tensor(weight.shape)
        else:
            tensors["weight"] = _signed(weight.codes_OI, bits)
        if not scheme.symmetric:
            assert weight.zero_OG is not None
            zero = weight.zero_OG
            packed_zero = (
                pack_bits(zero.t().contiguous(), bits).t().contiguous() if packed else None
            )
            tensors["weight_zero_point"] = (
                _signed(zero, bits) if packed_zero is None else packed_zero
            )
        return tensors

    def from_tensors(
        self, tensors: Mapping[str, Tensor], stored: Stored, shape: tuple[int, int]
    ) -> QuantizedWeight:
        """As `Layout.from_tensors`."""
        scheme, (O, I) = stored.scheme, shape
        scale = checks.scales(tensors, "weight_scale")
        if scheme.number == "float8":
            codes = checks.of_type(tensors, "weight", torch.float8_e4m3fn)
            if not codes.float().isfinite().all():
                raise UserError("weight holds numbers that are not finite")
            return QuantizedWeight(scheme, codes, scale, None)
        zero = torch.full_like(scale, 1 << (scheme.bits - 1), dtype=torch.uint8)
        if _form(stored) == _PACKED:
            if tensors["weight_shape"].tolist() != [O, I]:
                says = tensors["weight_shape"].tolist()
                raise UserError(f"weight_shape says {says}, config.json {[O, I]}")
            codes = _unpacked(tensors, "weight_packed", scheme.bits, I)
            if not scheme.symmetric:
                words = checks.of_type(tensors, "weight_zero_point", torch.int32)
                zero = unpack_bits(words.t().contiguous(), scheme.bits, O).t().contiguous()
        else:
            codes = _unsigned(tensors, "weight", scheme.bits)
            if not scheme.symmetric:
                zero = _unsigned(tensors, "weight_zero_point", scheme.bits)
        group = None
        if stored.ordered:
            group = checks.groups(tensors["weight_g_idx"], "weight_g_idx", scale.shape[1])
        return QuantizedWeight(scheme, codes, scale, zero, group)


def _targets(matrices: Mapping[str, Stored]) -> dict[Stored, list[str]]:
    """The layers of each scheme; the scheme of most comes last and means all that are not named."""
    by_scheme: dict[Stored, list[str]] = {}
    for name, stored in matrices.items():
        by_scheme.setdefault(stored, []).append(name)
    if len(by_scheme) > 1 and len({s for name, s in matrices.items() if _EXPERTS in name}) == 1:
        for stored, names in by_scheme.items():
            others = [name for name in names if _EXPERTS not in name]
            by_scheme[stored] = others if len(others) == len(names) else [*others, _ALL_EXPERTS]
    ranked = sorted(by_scheme, key=Counter(matrices.values()).__getitem__)
    usual = by_scheme[ranked[-1]]
    by_scheme[ranked[-1]] = ["Linear", *(name for name in usual if name == _ALL_EXPERTS)]
    return {stored: by_scheme[stored] for stored in ranked}


def _form(stored: Stored) -> str:
    """That on disk; the usual one is what llm-compressor writes."""
    if stored.form:
        return stored.form
    if stored.scheme.number == "float8":
        return _FLOAT
    return _PACKED if stored.scheme.activations == "full" else _INT


def _group(stored: Stored, targets: Sequence[str]) -> dict[str, Any]:
    """One of config_groups."""
    scheme = stored.scheme
    weights = _arguments(scheme.bits, scheme.number == "float8")
    weights |= {
        "symmetric": scheme.symmetric,
        "strategy": "channel" if scheme.group_size is None else "group",
        "group_size": scheme.group_size,
    }
    inputs = None
    if scheme.activations != "full":
        inputs = _arguments(8, scheme.activations == "float8")
        inputs |= {"symmetric": True, "strategy": "token", "group_size": None, "dynamic": True}
    return {
        "targets": list(targets), "weights": weights, "input_activations": inputs,
        "output_activations": None, "format": _form(stored),
    }  # fmt: skip


def _arguments(bits: int, is_float: bool) -> dict[str, Any]:
    return {"num_bits": bits, "type": "float" if is_float else "int", "dynamic": False}


def _stored(group: Mapping[str, Any], format_: object) -> Stored:
    """What one of config_groups says."""
    if group.get("output_activations"):
        raise UserError("output_activations are not supported (only null)")
    weights = checks.mapping(group.get("weights"), "weights")
    checks.one_of(weights, "dynamic", False, default=False)
    is_float = checks.one_of(weights, "type", "int", "float", default="int") == "float"
    bits = checks.one_of(weights, "num_bits", *((8,) if is_float else checks.BITS), default=8)
    strategy = checks.one_of(weights, "strategy", "group", "channel", default="channel")
    size = checks.group_size(weights.get("group_size")) if strategy == "group" else None
    scheme = Scheme(
        bits=bits,
        group_size=size,
        symmetric=checks.one_of(weights, "symmetric", True, False, default=True),
        number="float8" if is_float else "int",
        activations=_activations(group.get("input_activations")),
    )
    if is_float and not scheme.symmetric:
        raise UserError("fp8 weights with zero points are not supported")
    # Of a group or, in folders of earlier versions, of all.
    named = str(group.get("format") or format_)
    if named not in _FORMS:
        raise UserError(f"format {shown(named)} is not supported (only {', '.join(_FORMS)})")
    form = _FLOAT if is_float and _FORMS[named] == _INT else _FORMS[named]
    if is_float != (form == _FLOAT):
        raise UserError(
            f"format {shown(named)} does not hold weights of type {weights.get('type', 'int')}"
        )
    ordered = weights.get("actorder") in _GROUPED
    usual = form == _form(Stored(scheme))
    return Stored(scheme, ordered, "" if usual else form)


def _activations(values: object) -> Activations:
    if values is None:
        return "full"
    inputs = checks.mapping(values, "input_activations")
    checks.one_of(inputs, "dynamic", True, default=False)
    checks.one_of(inputs, "strategy", "token")
    checks.one_of(inputs, "symmetric", True, default=True)
    checks.one_of(inputs, "num_bits", 8, default=8)
    is_float = checks.one_of(inputs, "type", "int", "float", default="int") == "float"
    return "float8" if is_float else "int8"


class _Targets:
    """Targets of a group, or what is ignored: names of layers, patterns of names, classes of layers."""

    def __init__(self, targets: Iterable[str]) -> None:
        self._names = set(targets)
        texts = sorted(text for text in self._names if text.startswith(_PATTERN))
        self._patterns = [(text, checks.pattern(text.removeprefix(_PATTERN))) for text in texts]

    def find(self, name: str) -> str | None:
        """The target that means a linear layer: its name, else a pattern, else its class."""
        if name in self._names:
            return name
        matching = (text for text, pattern in self._patterns if pattern.match(name))
        return next(matching, "Linear" if "Linear" in self._names else None)


def _unpacked(tensors: Mapping[str, Tensor], part: str, bits: int, columns: int) -> Tensor:
    return unpack_bits(checks.of_type(tensors, part, torch.int32), bits, columns)


def _signed(codes: Tensor, bits: int) -> Tensor:
    return (codes.to(torch.int16) - (1 << (bits - 1))).to(torch.int8)


def _unsigned(tensors: Mapping[str, Tensor], part: str, bits: int) -> Tensor:
    numbers = checks.of_type(tensors, part, torch.int8).to(torch.int16) + (1 << (bits - 1))
    if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < 1 << bits:
        raise UserError(f"{part} holds numbers that {bits} bits do not hold")
    return numbers.to(torch.uint8)
