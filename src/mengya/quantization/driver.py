"""Quantize a model layer by layer: each with the inputs that the quantized layers before it give.

Takes a model with full weights, a plan and maybe calibration rows; puts the rounded weights into the model
and gives them with their errors. One layer at a time is on the device. Knows no files: what is kept of a
finished layer is up to `Store`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from mengya.errors import UserError
from mengya.kernels.quantized.weight import QuantizedWeight
from mengya.models.causal_lm import CausalLM, DecoderLayer
from mengya.quantization.calibration import CalibrationRows
from mengya.quantization.folds import half_folds
from mengya.quantization.grid import GridRule, round_to_nearest
from mengya.quantization.groups import Group, Half, Site, layer_halves
from mengya.quantization.hidden_states import HiddenStates, enough
from mengya.quantization.methods.awq import search_scales
from mengya.quantization.methods.method import Method
from mengya.quantization.reference import Reference
from mengya.quantization.statistics import InputStatistics

Statistics = list[InputStatistics] | None
"""Of every site of a group; None without calibration."""


@dataclass(frozen=True)
class QuantizationPlan:
    """
    Attributes:
        rule: of each group, by its name.
    """

    method: Method
    rule: Callable[[Group], GridRule]
    device: torch.device


@dataclass(frozen=True)
class MatrixRecord:
    """What became of a matrix.

    Attributes:
        error: |x (W - W')ᵀ| / |x Wᵀ| over the calibration; without one |W - W'| / |W|.
        rtn_error: the same of rounding to nearest over the full range.
        tokens: inputs that it was calibrated on.
        damping, dead_columns, note: as in `Solution`.
    """

    name: str
    shape: tuple[int, int]
    bits: int
    group_size: int | None
    error: float
    rtn_error: float
    tokens: int
    damping: float | None
    dead_columns: int
    note: str


@dataclass(frozen=True)
class QuantizedLayer:
    """
    Attributes:
        weights: by name on disk, without `.weight`.
        full: all other tensors of the layer, by their name in it, as folding left them.
    """

    weights: dict[str, QuantizedWeight]
    full: dict[str, Tensor]
    records: list[MatrixRecord]


class Store(Protocol):
    """Keeps finished layers, so that an interrupted run resumes."""

    def load(self, number: int) -> QuantizedLayer | None: ...

    def save(self, number: int, layer: QuantizedLayer) -> None: ...


Advance = Callable[[MatrixRecord], object]


@torch.no_grad()
def quantize_layers(
    model: CausalLM,
    plan: QuantizationPlan,
    rows: CalibrationRows | None,
    store: Store,
    advance: Advance,
) -> Iterator[QuantizedLayer]:
    """Every layer in order, on the CPU; `model` (fp32, there too, in evaluation mode) gets rounded weights.

    Raises:
        UserError: the inputs of a matrix are not finite, or its Hessian cannot be factored.
    """
    states = None if rows is None else HiddenStates(model, rows, plan.device)
    reference = None
    if rows is not None and plan.method.corrects:
        reference = Reference(model, rows, plan.device)
    for number, module in enumerate(model.model.layers):
        layer = cast(DecoderLayer, module.to(plan.device))
        done = store.load(number)
        if reference is not None:
            reference.enter(layer, number)
        if done is None:
            done = _quantize_layer(layer, number, plan, states, reference, advance)
            store.save(number, done)
        else:
            _put_back(layer, number, done)
            for record in done.records:
                advance(record)
            if states is not None:
                for half in layer_halves(layer, number):
                    _advance(half, states, reference)
        layer.to("cpu")
        yield done


def _quantize_layer(
    layer: DecoderLayer,
    number: int,
    plan: QuantizationPlan,
    states: HiddenStates | None,
    reference: Reference | None,
    advance: Advance,
) -> QuantizedLayer:
    weights: dict[str, QuantizedWeight] = {}
    records: list[MatrixRecord] = []
    for half in layer_halves(layer, number):
        for groups in _passes(half, plan.method):
            statistics: list[Statistics] = [None] * len(groups)
            if states is not None:
                statistics = collect(half, groups, states, reference)
            if plan.method.folds:
                fold(half, plan, statistics)
            for group, known in zip(groups, statistics, strict=True):
                for record, weight in _solve_group(group, plan, known):
                    weights[record.name] = weight
                    records.append(record)
                    advance(record)
        if states is not None:
            _advance(half, states, reference)
    quantized = {f"{name}.weight" for name in weights}
    full = {name: tensor.cpu() for name, tensor in _full_tensors(layer, number, quantized)}
    return QuantizedLayer(weights, full, records)


def _advance(half: Half, states: HiddenStates, reference: Reference | None) -> None:
    states.advance(half)
    if reference is not None:
        reference.advance()


def _passes(half: Half, method: Method) -> Iterator[tuple[Group, ...]]:
    """The groups that are solved from one pass."""
    if method.sequential:
        yield from ((group,) for group in half.groups)
    else:
        yield half.groups


def collect(
    half: Half,
    groups: tuple[Group, ...],
    states: HiddenStates,
    reference: Reference | None = None,
) -> list[Statistics]:
    """The inputs of the groups of a half, in one pass as its weights are now; with `reference`, drift too."""
    found = [
        [InputStatistics(site.inputs, site.device) for site in group.sites] for group in groups
    ]
    watched = [
        (watch, sums) for group, sums in zip(groups, found, strict=True) for watch in group.watched
    ]
    full = [] if reference is None else reference.watched(groups)
    batches = None if reference is None else reference.inputs(full)

    def see(real_N: Tensor) -> list[Any]:
        inputs = None if batches is None else next(batches)

        def hook(index: int) -> Any:
            watch, sums = watched[index]

            def count(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
                if inputs is None:
                    for site, x_TI in watch.rows(arguments, real_N):
                        sums[site].add(x_TI)
                else:  # routed as in the quantized model, so that both have the same tokens
                    same = full[index].rows((inputs[index], *arguments[1:]), real_N)
                    pairs = zip(watch.rows(arguments, real_N), same, strict=True)
                    for (site, x_TI), (_, full_TI) in pairs:
                        sums[site].add(x_TI, full_TI)
                if index == len(watched) - 1:
                    enough()

            return watch.module.register_forward_pre_hook(count)

        return [hook(index) for index in range(len(watched))]

    states.watch(half, see)
    return list(found)


def fold(half: Half, plan: QuantizationPlan, statistics: list[Statistics]) -> None:
    """Scale what can be scaled, and the statistics with it."""
    for each in half_folds(half):
        group, known = half.groups[each.group], statistics[each.group]
        assert known is not None
        sites = [group.sites[number] for number in each.sites]
        weights = [site.weight() for site in sites]
        s_I = search_scales(weights, [known[n] for n in each.sites], plan.rule(group))
        each.apply(s_I, sites)
        for number in each.sites:
            known[number] = known[number].scaled(1 / s_I)


def _solve_group(
    group: Group, plan: QuantizationPlan, statistics: Statistics
) -> Iterator[tuple[MatrixRecord, QuantizedWeight]]:
    """Round the matrices of a group and put them into the model."""
    rule = plan.rule(group)
    for number, site in enumerate(group.sites):
        known = None if statistics is None else statistics[number]
        weight_OI = site.weight()
        try:
            solution = plan.method.solve(weight_OI, rule, known)
        except UserError as error:
            raise _of_site(site, error) from error
        rounded_OI = solution.weight.dequantize()
        errors = _errors(site, weight_OI, rounded_OI, known)
        baseline_OI = round_to_nearest(weight_OI, _plain(rule)).dequantize()
        rtn_errors = _errors(site, weight_OI, baseline_OI, known)
        if statistics is not None:
            statistics[number] = InputStatistics(0)  # of a large mixture they fill the memory
        parts = zip(site.matrices, split_rows(solution.weight, site.rows()), strict=True)
        for at, (matrix, weight) in enumerate(parts):
            matrix.weight_OI.copy_(weight.dequantize())
            record = MatrixRecord(
                matrix.name, (weight.shape[0], weight.shape[1]), rule.scheme.bits,
                rule.scheme.group_size, errors[at], rtn_errors[at], 0 if known is None else known.tokens,
                solution.damping, solution.dead_columns, solution.note,
            )  # fmt: skip
            yield record, weight.to("cpu")


def _plain(rule: GridRule) -> GridRule:
    return GridRule(rule.scheme, "minmax", rule.dtype)


def _errors(
    site: Site, weight_OI: Tensor, rounded_OI: Tensor, known: InputStatistics | None
) -> list[float]:
    """Relative error of each matrix of a site."""

    def squares(matrix_OI: Tensor) -> list[float]:
        rows_O = (
            known.row_squares(matrix_OI)
            if known is not None and known.tokens
            else matrix_OI.square().sum(1)
        )
        return [part.sum().item() for part in rows_O.split(site.rows())]

    pairs = zip(squares(rounded_OI - weight_OI), squares(weight_OI), strict=True)
    return [(error / full) ** 0.5 if full > 0 else 0.0 for error, full in pairs]


def _of_site(site: Site, error: UserError) -> UserError:
    name = site.matrices[0].name
    return UserError(
        f"{name}: {error}. Is the model sound? `mengya evaluate` on the same text tells; else calibrate on "
        "other text, with calibration.seed=1, or without inputs: method=rtn"
    )


def split_rows(weight: QuantizedWeight, rows: list[int]) -> Iterator[QuantizedWeight]:
    """The matrices that lie one below the other in `weight`."""
    zeros = [None] * len(rows) if weight.zero_OG is None else weight.zero_OG.split(rows)
    parts = zip(weight.codes_OI.split(rows), weight.scale_OG.split(rows), zeros, strict=True)
    for codes, scale, zero in parts:
        kept = None if zero is None else zero.contiguous()
        group = None if weight.group_I is None else weight.group_I.clone()  # files share no memory
        yield QuantizedWeight(weight.scheme, codes.contiguous(), scale.contiguous(), kept, group)


def _full_tensors(
    layer: DecoderLayer, number: int, quantized: set[str]
) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in layer.state_dict().items():
        stacked = name in ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
        if not stacked and f"model.layers.{number}.{name}" not in quantized:
            yield name, tensor


def _put_back(layer: DecoderLayer, number: int, done: QuantizedLayer) -> None:
    """The weights of a layer that an earlier run finished."""
    places: Mapping[str, Tensor] = layer.state_dict()
    for name, tensor in done.full.items():
        places[name].copy_(tensor)
    for half in layer_halves(layer, number):
        for group in half.groups:
            for matrix in group.matrices():
                weight = done.weights[matrix.name].to(matrix.weight_OI.device)
                matrix.weight_OI.copy_(weight.dequantize())
