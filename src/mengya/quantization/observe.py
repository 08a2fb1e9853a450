"""Observe, then spend bits where they are missed most.

A first pass over the full model measures what rounding to nearest does to the outputs of every group; the
groups with the largest error get the next larger width, the worst first, until the mean is reached. Matrices
of a group stay together, because servers merge them (q, k and v; gate and up), and all experts of the model,
because transformers reads experts of one scheme alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch

from mengya.models.causal_lm import CausalLM, DecoderLayer
from mengya.quantization.calibration import CalibrationRows
from mengya.quantization.config import WIDTHS, Bits
from mengya.quantization.driver import collect
from mengya.quantization.grid import GridRule, round_to_nearest
from mengya.quantization.groups import Group, layer_halves
from mengya.quantization.hidden_states import HiddenStates
from mengya.quantization.statistics import InputStatistics


@dataclass(frozen=True)
class Observed:
    """A group when it is rounded to nearest.

    Attributes:
        error: relative, of its outputs.
        weights: how many it has.
        unit: groups of one unit have one width.
    """

    error: float
    weights: int
    unit: str


@torch.no_grad()
def observe(
    model: CausalLM,
    rows: CalibrationRows,
    rule: GridRule,
    device: torch.device,
    advance: Callable[[str], object],
) -> dict[str, Observed]:
    """Every group of the model by name; the model stays as it is."""
    states, observed = HiddenStates(model, rows, device), {}
    for number, module in enumerate(model.model.layers):
        layer = cast(DecoderLayer, module.to(device))
        for half in layer_halves(layer, number):
            for group, known in zip(half.groups, collect(half, half.groups, states), strict=True):
                assert known is not None
                unit = "experts" if half.is_mixture else group.name
                observed[group.name] = _observe(group, known, rule, unit)
                advance(group.name)
            states.advance(half)
        layer.to("cpu")
    return observed


def _observe(group: Group, known: list[InputStatistics], rule: GridRule, unit: str) -> Observed:
    error = full = 0.0
    for site, each in zip(group.sites, known, strict=True):
        weight_OI = site.weight()
        importance_I = each.importance_I if each.tokens else None
        rounded_OI = round_to_nearest(weight_OI, rule, importance_I).dequantize()
        error += each.row_squares(rounded_OI - weight_OI).sum().item()
        full += each.row_squares(weight_OI).sum().item()
    weights = sum(matrix.weight_OI.numel() for matrix in group.matrices())
    return Observed((error / full) ** 0.5 if full > 0 else 0.0, weights, unit)


def choose_widths(
    observed: Mapping[str, Observed], bits: Bits, mean_bits: float
) -> dict[str, Bits]:
    """The width of every group: the largest errors get more, a step at a time, within `mean_bits`.

    A wider group's error is taken to fall by half for each bit, as that of rounding does.
    """
    sizes, errors = dict[str, int](), dict[str, float]()
    for each in observed.values():
        sizes[each.unit] = sizes.get(each.unit, 0) + each.weights
        errors[each.unit] = max(errors.get(each.unit, 0.0), each.error)
    widths: dict[str, Bits] = dict.fromkeys(sizes, bits)
    left = round((mean_bits - bits) * sum(sizes.values()))
    open_units = set(sizes)
    while open_units:
        unit = max(sorted(open_units), key=errors.__getitem__)
        wider = WIDTHS[WIDTHS.index(widths[unit]) + 1 :][:1]
        cost = (wider[0] - widths[unit]) * sizes[unit] if wider else 0
        if not wider or cost > left:
            open_units.remove(unit)
            continue
        left -= cost
        errors[unit] /= 2 ** (wider[0] - widths[unit])
        widths[unit] = wider[0]
    return {name: widths[each.unit] for name, each in observed.items()}


def mean_width(widths: Mapping[str, Bits], observed: Mapping[str, Observed]) -> float:
    """Bits of a weight on average."""
    total = sum(each.weights for each in observed.values())
    return sum(widths[name] * each.weights for name, each in observed.items()) / total
