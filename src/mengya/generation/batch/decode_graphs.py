"""Decoding steps recorded as CUDA graphs, so that launching hundreds of small kernels costs one call.

Takes the model, the pages and one token for each of some rows; gives logits. A graph is made for each
of some batch sizes; a batch is padded to the next one with rows that write to a scratch page.
Knows nothing of requests. Shapes: B rows, S rows of the recorded size, M pages of a table, V vocabulary.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mengya.kernels.attention import paged
from mengya.models.cache.paged import PagedCache, PagedStep
from mengya.models.causal_lm import CausalLM
from mengya.models.quantized.layers import QuantizedExperts
from mengya.runtime.device import to_device


def can_use_graphs(model: CausalLM) -> bool:
    """On CUDA with Triton; experts only where one grouped product multiplies them (`Experts`)."""
    weight = model.lm_head.weight
    if not paged.is_supported(weight.device):
        return False
    if not model.config.num_experts:
        return True
    experts = (module for module in model.modules() if isinstance(module, QuantizedExperts))
    if any(module.stack is None for module in experts):
        return False
    # Elsewhere the loop over experts reads sizes from the device, which a capture forbids.
    aligned = model.config.hidden_size % 8 == 0 and model.config.expert_width % 8 == 0
    hopper = torch.cuda.get_device_capability(weight.device)[0] >= 9
    return weight.dtype == torch.bfloat16 and aligned and hopper


def graph_sizes(most: int) -> list[int]:
    """1, 2, 4, 8, 16, then multiples of 32 up to 256, then of 128: at most a few rows are wasted."""
    sizes = [1, 2, 4, 8, 16, *range(32, 257, 32), *range(384, most + 128, 128)]
    return [size for size in sizes if size < most] + [most]


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A graph and the memory that it reads from and writes to; `plan` is [S, 1 + M]: position, pages."""

    graph: torch.cuda.CUDAGraph
    ids_S: Tensor
    plan: Tensor
    logits_SV: Tensor


class _Staging:
    """Pinned host memory for the plan of a step, and the event after its last copy to the device."""

    def __init__(self, rows: int, columns: int) -> None:
        self.tensor = torch.zeros(rows, columns, dtype=torch.int32, pin_memory=True)
        self.array = self.tensor.numpy()
        self.read = torch.cuda.Event()


class DecodeGraphs:
    """One graph for each size, recorded when this is made, the largest first: the others reuse its memory."""

    def __init__(
        self,
        model: CausalLM,
        cache: PagedCache,
        most_rows: int,
        table_width: int,
        scratch_page: int,
    ) -> None:
        """
        Args:
            scratch_page: a page that no sequence has; padding rows write there.
        """
        self._model, self._cache = model, cache
        self._scratch_page, self._table_width = scratch_page, table_width
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[int, _Recorded] = {}
        for size in reversed(graph_sizes(most_rows)):
            self._graphs[size] = self._record(size)
        self._sizes = np.array(sorted(self._graphs))
        # Two, so that a step's plan can be written while the last one is still being copied.
        self._staging = itertools.cycle([_Staging(most_rows, 1 + table_width) for _ in range(2)])

    def run(self, ids_B: Tensor, starts_B: np.ndarray, tables_BM: np.ndarray) -> Tensor:
        """Logits after one more token of each row, [B, V]; valid until the next run.

        Args:
            ids_B: int64, on the device.
            starts_B: int, how many tokens each row's pages hold before.
            tables_BM: int32.
        """
        B = len(starts_B)
        size = int(self._sizes[self._sizes.searchsorted(B)])
        recorded = self._graphs[size]
        staging = next(self._staging)
        staging.read.synchronize()
        plan = staging.array[:size]
        plan[:B, 0] = starts_B
        plan[:B, 1:] = tables_BM
        self._pad(plan[B:])
        recorded.ids_S[:B].copy_(ids_B)
        recorded.plan.copy_(staging.tensor[:size], non_blocking=True)
        staging.read.record()
        recorded.graph.replay()
        return recorded.logits_SV[:B]

    def _pad(self, plan: np.ndarray) -> None:
        """Make these rows padding."""
        plan[:] = 0
        plan[:, 1] = self._scratch_page

    @torch.inference_mode()
    def _record(self, size: int) -> _Recorded:
        device = self._cache.device
        ids_S = torch.zeros(size, dtype=torch.int64, device=device)
        padding = np.empty((size, 1 + self._table_width), dtype=np.int32)
        self._pad(padding)
        plan = to_device(padding, device)

        def forward() -> Tensor:
            step = PagedStep.of_rows(self._cache, plan[:, 0], plan[:, 1:])
            return self._model.decode(ids_S[None], step)[0]

        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            forward()  # compiles kernels and makes handles, which a recording cannot do
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Another model may be loaded while engines of other threads run: their calls are no errors.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits_SV = forward()
        return _Recorded(graph, ids_S, plan, logits_SV)
