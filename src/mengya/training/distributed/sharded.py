"""The engines under which no process can use the trained module by itself: a whole copy where one is needed."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from mengya.models.causal_lm import CausalLM
from mengya.training.distributed.process_group import Ranks


class Skeletons(Ranks, ABC):
    """Remembers the bare module of each placed model, to be filled with gathered weights."""

    def __init__(self, device: torch.device, autocast_dtype: torch.dtype | None) -> None:
        super().__init__(device, autocast_dtype)
        self._skeletons: dict[nn.Module, CausalLM] = {}

    def remember(self, model: CausalLM) -> None:
        """Keep the shape of `model` without memory: before the engine changes its modules."""
        bare = {id(t): _bare(t) for _, t in named_tensors(model)}
        self._skeletons[model] = copy.deepcopy(model, bare)

    def whole(self, model: CausalLM, device: torch.device) -> CausalLM | None:
        tensors = self.gather(dict(named_tensors(model)))
        if self.rank > 0:
            return None
        whole = copy.deepcopy(self._skeletons[model]).to_empty(device=device)
        whole.tie_weights()
        with torch.no_grad():
            for name, place in named_tensors(whole):
                place.copy_(tensors[name])
        return whole

    def refill(self, model: CausalLM, read: Callable[[CausalLM], object]) -> None:
        whole = self.whole(model, torch.device("cpu"))
        if whole is not None:
            read(whole)
        tensors = dict(named_tensors(whole)) if whole is not None else {}
        for name, place in list(named_tensors(model)):
            self.spread(name, tensors.get(name), place)

    @abstractmethod
    def spread(self, name: str, whole: Tensor | None, place: Tensor) -> None:
        """Bring rank 0's tensor, None on the others, to where every rank has its part of it."""


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, shared ones once."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _bare(tensor: Tensor) -> Tensor:
    bare = tensor.detach().to("meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(bare, tensor.requires_grad)
    return bare
