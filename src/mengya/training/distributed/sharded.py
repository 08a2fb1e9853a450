"""What the engines with sharded weights share: full models made from shards, and shards from full models."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from mengya.models.causal_lm import CausalLM


class ShardedStrategy(ABC):
    """Mixin for strategies under which no process can use the trained module by itself.

    Keeps the unsharded structure of each placed model, without memory, to be filled with gathered weights.
    """

    rank: int

    def __init__(self) -> None:
        self._unsharded: dict[nn.Module, CausalLM] = {}

    def remember(self, model: CausalLM) -> None:
        """Keep the structure of `model`: called before the engine changes its modules."""
        meta = {id(t): _on_meta(t) for _, t in named_tensors(model)}
        self._unsharded[model] = copy.deepcopy(model, meta)

    def full_model(self, model: CausalLM, device: torch.device) -> CausalLM | None:
        tensors = self.gather_full(dict(named_tensors(model)))
        if self.rank > 0:
            return None
        full = copy.deepcopy(self._unsharded[model]).to_empty(device=device)
        full.tie_weights()
        with torch.no_grad():
            for name, place in named_tensors(full):
                place.copy_(tensors[name])
        return full

    def load_full_weights(self, model: CausalLM, load: Callable[[CausalLM], object]) -> None:
        full = self.full_model(model, torch.device("cpu"))
        if full is not None:
            load(full)
        tensors = dict(named_tensors(full)) if full is not None else {}
        for name, place in list(named_tensors(model)):
            self.scatter(name, tensors.get(name), place)

    @abstractmethod
    def gather_full(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """As `Strategy.gather_full`."""

    @abstractmethod
    def scatter(self, name: str, full: Tensor | None, place: Tensor) -> None:
        """Send every rank its part of rank 0's tensor `full` (None on the others), into `place`."""


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, shared ones once."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _on_meta(tensor: Tensor) -> Tensor:
    meta = tensor.detach().to("meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(meta, tensor.requires_grad)
    return meta
