"""The hidden states of the calibration between two halves of a layer, as the layers before it made them.

Takes rows of ids and the embedding; gives batches. They lie on the device while that has room, else on the
CPU. Shapes: B rows, S positions, H hidden, N = B * S.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mengya.models.attention_mask import AttentionPlan, plan_attention
from mengya.models.causal_lm import CausalLM
from mengya.quantization.calibration import CalibrationRows
from mengya.quantization.groups import Half

_BATCH_TOKENS = {"cpu": 8192, "cuda": 32768}
_SHARE = 4  # of the device's free memory that hidden states may take


class _Enough(Exception):
    """Ends a pass that has shown all that it was made for."""


@dataclass(frozen=True)
class Batch:
    """Rows on the device; real_BS is False on padding."""

    x_BSH: Tensor
    plan: AttentionPlan
    real_BS: Tensor


class HiddenStates:
    """What enters the next half of a layer, for all rows."""

    @torch.no_grad()
    def __init__(self, model: CausalLM, rows: CalibrationRows, device: torch.device) -> None:
        self._model, self._rows, self._device = model, rows, device
        self._size = max(1, _BATCH_TOKENS.get(device.type, 8192) // rows.input_ids_RS.shape[1])
        weight = model.model.embed_tokens.weight
        size = rows.input_ids_RS.numel() * weight.shape[1] * weight.element_size()
        kept = device if _has_room(device, size) else torch.device("cpu")
        self._states = [
            model.model.embed_tokens(ids.to(weight.device)).to(kept)
            for ids in rows.input_ids_RS.split(self._size)
        ]

    def batches(self) -> Iterator[Batch]:
        ids, positions, documents = (
            tensor.split(self._size)
            for tensor in (
                self._rows.input_ids_RS, self._rows.position_ids_RS, self._rows.document_ids_RS
            )
        )  # fmt: skip
        for number, x_BSH in enumerate(self._states):
            ids_BS, positions_BS, documents_BS = (
                part[number].to(self._device) for part in (ids, positions, documents)
            )
            plan = plan_attention(
                self._model.config, ids_BS, positions_BS, documents_BS, None, x_BSH.dtype
            )
            yield Batch(x_BSH.to(self._device), plan, documents_BS >= 0)

    @torch.no_grad()
    def watch(
        self, half: Half, see: Callable[[Tensor], list[torch.utils.hooks.RemovableHandle]]
    ) -> None:
        """Run `half` on every batch, with the hooks that `see` makes for its tokens (bool, [N])."""
        for batch in self.batches():
            handles = see(batch.real_BS.flatten())
            try:
                _run(half, batch)
            except _Enough:
                continue
            finally:
                for handle in handles:
                    handle.remove()

    @torch.no_grad()
    def inputs(self, half: Half, modules: list[nn.Module]) -> Iterator[list[Tensor]]:
        """Of every batch the first argument of each of the modules, of which the last one runs last."""
        for batch in self.batches():
            inputs: dict[int, Tensor] = {}
            handles = [
                module.register_forward_pre_hook(_keeper(inputs, index, len(modules)))
                for index, module in enumerate(modules)
            ]
            try:
                with suppress(_Enough):
                    _run(half, batch)
            finally:
                for handle in handles:
                    handle.remove()
            yield [inputs[index] for index in range(len(modules))]

    @torch.no_grad()
    def advance(self, half: Half) -> None:
        """Take the states through `half`."""
        for number, batch in enumerate(self.batches()):
            made = batch.x_BSH + _run(half, batch)
            self._states[number] = made.to(self._states[number].device)


def _keeper(
    inputs: dict[int, Tensor], index: int, count: int
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs[index] = arguments[0]
        if index == count - 1:
            enough()

    return keep


def enough() -> None:
    """End the pass of this batch; for the last hook of `watch`."""
    raise _Enough


def _run(half: Half, batch: Batch) -> Tensor:
    normed = half.norm(batch.x_BSH)
    if half.is_attention:
        return half.block(normed, batch.plan)
    out = half.block(normed, batch.real_BS) if half.is_mixture else half.block(normed)
    return out[0] if half.is_mixture else out


def _has_room(device: torch.device, size: int) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return size * _SHARE < free
