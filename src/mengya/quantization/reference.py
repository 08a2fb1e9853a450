"""The full model next to the one that is being quantized, on the same calibration.

Takes a layer before its weights change; gives what its matrices multiply in the full model. Holds one copy of
a layer and a second set of hidden states. Knows no method.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import Tensor

from mengya.models.causal_lm import CausalLM, DecoderLayer
from mengya.quantization.calibration import CalibrationRows
from mengya.quantization.groups import Group, Half, Watched, layer_halves
from mengya.quantization.hidden_states import HiddenStates


class Reference:
    """Goes through the layers half by half, as the quantized model does."""

    def __init__(self, model: CausalLM, rows: CalibrationRows, device: torch.device) -> None:
        self._states = HiddenStates(model, rows, device)
        self._halves: list[Half] = []

    def enter(self, layer: DecoderLayer, number: int) -> None:
        """Layer `number`, its weights still full; copied, because they will not stay so."""
        self._halves = list(layer_halves(deepcopy(layer), number))

    def watched(self, groups: tuple[Group, ...]) -> list[Watched]:
        """Of the groups of the same names in the full model."""
        names = {group.name for group in groups}
        return [
            watch
            for group in self._halves[0].groups
            if group.name in names
            for watch in group.watched
        ]

    def inputs(self, watched: list[Watched]) -> Iterator[list[Tensor]]:
        """Of every batch what each of the modules gets."""
        return self._states.inputs(self._halves[0], [watch.module for watch in watched])

    def advance(self) -> None:
        """Take the states through this half, and go to the next."""
        self._states.advance(self._halves.pop(0))
