"""Memory that a batch engine takes as long as it stands: weights, a packed copy of them, pages.

Takes a model, on the meta device for an estimate before anything is loaded, and the engine's settings;
gives bytes. What a forward pass needs for a moment, and what CUDA graphs hold, is not in it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from mengya.generation.batch.request import EngineConfig
from mengya.kernels.linear import packs_on
from mengya.models.cache.kv import cache_bytes_per_token
from mengya.models.cache.paged import tokens_that_fit
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.runtime.integers import ceil_div


class EngineMemory(NamedTuple):
    """Bytes, and the longest text that the pages hold.

    Attributes:
        weights: parameters, buffers and the packed copy.
        pages: keys and values, the scratch page included.
        context: of `BatchEngine`.
    """

    weights: int
    pages: int
    context: int

    @property
    def total(self) -> int:
        return self.weights + self.pages


def page_count(
    config: ModelConfig, settings: EngineConfig, dtype: torch.dtype, device: torch.device
) -> int:
    """Pages that sequences may share: `cache_tokens`, or full contexts for all that may run, or what fits."""
    size = settings.page_size
    rounded = ceil_div(config.context_length, size) * size
    if settings.cache_tokens is not None:
        return max(settings.cache_tokens // size, 1)
    fitting = tokens_that_fit(config, dtype, device)
    return max(min(settings.max_running * rounded, fitting), rounded) // size


def engine_memory(
    model: CausalLM, settings: EngineConfig, dtype: torch.dtype, device: torch.device
) -> EngineMemory:
    """What `BatchEngine` would take for a model without adapters; on CUDA the pages are an upper bound.

    There they depend on what is free once the weights are loaded.

    Args:
        model: on the meta device (`checkpoint_on_meta`), for `device`.
    """
    config = model.config
    weights = weight_bytes(model, packed=settings.pack_weights and packs_on(device, dtype))
    pages = page_count(config, settings, dtype, device)
    per_page = settings.page_size * cache_bytes_per_token(config, dtype)
    context = min(config.context_length, pages * settings.page_size)
    return EngineMemory(weights, (pages + 1) * per_page, context)


def weight_bytes(model: nn.Module, packed: bool) -> int:
    """Bytes of parameters (tied ones once) and buffers, and of the copy that `pack_linears` makes."""
    total = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    if packed:
        total += sum(m.weight.nbytes for m in model.modules() if type(m) is nn.Linear)
    return total
