"""One forward pass of the batch engine: the model, the memory of its pages, its recorded steps.

Takes the work that the scheduler has planned; gives the logits from which the next tokens are chosen.
Knows nothing of sampling or of the waiting queue. Shapes: S sequences of the work, R of them ready for a
token, N new tokens of all, M pages of a table, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mengya.generation.batch.decode_graphs import DecodeGraphs, can_use_graphs
from mengya.generation.batch.memory import page_count, weight_bytes
from mengya.generation.batch.request import EngineConfig
from mengya.generation.batch.row_choice import Logprobs, PendingTokens
from mengya.generation.batch.scheduler import Work
from mengya.generation.batch.sequence import SequenceState
from mengya.kernels.attention import paged
from mengya.kernels.linear import can_pack, fuse_storage, pack_linears
from mengya.models.cache.paged import PagedCache, PagedStep
from mengya.models.causal_lm import CausalLM
from mengya.runtime.device import to_device
from mengya.runtime.integers import ceil_div


class ForwardPass:
    """
    Attributes:
        pages: how many the sequences may share.
        context: longest sequence that model and pages allow.
        memory_bytes: of weights, their packed copy and pages.
    """

    def __init__(
        self,
        model: CausalLM,
        settings: EngineConfig,
        select_adapter: Callable[[str | None], None] | None,
    ) -> None:
        """Arguments as those of `BatchEngine`."""
        self._model = model.eval()
        # Selecting an adapter may change weights, of which packed layers hold a copy.
        packed = settings.pack_weights and select_adapter is None and can_pack(model)
        if packed:
            self._model = pack_linears(model)
        if select_adapter is None and paged.is_supported(model.lm_head.weight.device):
            fuse_storage(model)
        self.device = model.lm_head.weight.device
        self._select_adapter = select_adapter
        self._adapter: str | None = None
        if select_adapter is not None:
            select_adapter(None)
        dtype, size = model.model.norm.weight.dtype, settings.page_size
        self.pages = page_count(model.config, settings, dtype, self.device)
        self.context = min(model.config.context_length, self.pages * size)
        # One page more, the scratch page, into which padding slots write.
        self._cache = PagedCache(model.config, self.pages + 1, size, dtype, self.device)
        self.memory_bytes = weight_bytes(model, packed) + sum(p.nbytes for p in self._cache.layers)
        self._table_width = ceil_div(self.context, size)
        self._graphs: DecodeGraphs | None = None
        if settings.cuda_graphs and select_adapter is None and can_use_graphs(model):
            self._graphs = DecodeGraphs(
                self._model, self._cache, settings.max_running, self._table_width, self.pages
            )
        if paged.is_supported(self.device):
            self._compile_kernels()

    def run(self, work: Work, tables: np.ndarray, before: PendingTokens | None) -> Tensor:
        """Logits after each sequence that is ready for a token, [R, V], until the next run.

        Notes the log-probabilities of prompts that are to be echoed.

        Args:
            tables: int32, pages of each row of the scheduler.
            before: tokens still on the device that go into this pass.
        """
        self._use_adapter(work.sequences[0].request.adapter)
        starts_S = np.array([s.stored for s in work.sequences])
        counts_S = np.array(work.counts)
        tables_SM = tables[[s.row for s in work.sequences]]
        ids_N = self._input_ids(work, before)
        if self._graphs is not None and len(work.ready) == len(counts_S) == len(ids_N):
            return self._graphs.run(ids_N, starts_S, tables_SM)
        return self._forward(work, ids_N, starts_S, counts_S, tables_SM)

    def _use_adapter(self, adapter: str | None) -> None:
        if adapter != self._adapter:
            assert self._select_adapter is not None  # `add` has refused adapters without it
            self._select_adapter(adapter)
            self._adapter = adapter

    def _input_ids(self, work: Work, before: PendingTokens | None) -> Tensor:
        """Tokens to compute, [N] int64 on the device; pending ones are read there."""
        decoding = work.counts[-1] == 1
        if decoding and before is not None and before.sequences == work.ready == work.sequences:
            return before.chosen_R
        ids: list[int] = []
        in_flight: list[tuple[int, int]] = []
        for sequence, count in zip(work.sequences, work.counts, strict=True):
            if sequence.stored == len(sequence.tokens):
                in_flight.append((len(ids), sequence.pending_index))
                ids.append(0)
            else:
                ids += sequence.tokens[sequence.stored : sequence.stored + count]
        ids_N = to_device(np.array(ids, dtype=np.int64), self.device)
        if in_flight:
            assert before is not None  # a token not on the host is pending
            places, sources = to_device(np.array(in_flight, dtype=np.int64).T.copy(), self.device)
            ids_N[places] = before.chosen_R[sources]
        return ids_N

    def _forward(
        self,
        work: Work,
        ids_N: Tensor,
        starts_S: np.ndarray,
        counts_S: np.ndarray,
        tables_SM: np.ndarray,
    ) -> Tensor:
        sequences = work.sequences
        lengths = np.array([s.length for s in sequences])
        echoing = np.array([s.echoing for s in sequences])
        ready = starts_S + counts_S == lengths
        ends = counts_S.cumsum()
        # All positions of echoing sequences, else the last where it gives a token; at least one in all.
        sizes = np.where(echoing, counts_S, ready)
        if not sizes.any():
            sizes[-1] = 1
        wanted = np.concatenate([np.arange(e - n, e) for e, n in zip(ends, sizes, strict=True)])
        step = PagedStep.of(self._cache, tables_SM, starts_S, counts_S)
        positions = to_device(wanted, self.device)
        logits_NV = self._model.decode(ids_N[None], step, positions=positions)[0]
        if not echoing.any():
            return logits_NV
        parts = logits_NV.split(sizes.tolist())
        for sequence, part, is_echoing in zip(sequences, parts, echoing, strict=True):
            if is_echoing:
                self._echo(sequence, part)
        return logits_NV[to_device(sizes.cumsum()[ready] - 1, self.device)]

    def _echo(self, sequence: SequenceState, logits_SV: Tensor) -> None:
        """Note the log-probabilities of the prompt's tokens that these logits predict."""
        prompt = sequence.request.prompt
        # After a preemption the first positions come a second time.
        skipped = len(sequence.echoed) - 1 - sequence.stored
        predicted = prompt[len(sequence.echoed) : sequence.stored + len(logits_SV) + 1]
        if predicted:
            logits = logits_SV[skipped : skipped + len(predicted)]
            chosen = torch.tensor(predicted, device=self.device)
            found = Logprobs.of(logits, chosen, sequence.request.top_logprobs or 0)
            if self.device.type == "cuda":
                torch.cuda.current_stream().synchronize()
            sequence.echoed += found.rows()

    @torch.inference_mode()
    def _compile_kernels(self) -> None:
        """The kernels of steps with prompts, so that no request waits for it; graphs compile their own."""
        longer = min(self._cache.page_size, 2)
        # Few rows are split over their keys and many are not; a number of tokens that 16 divides is
        # another kernel to Triton than one that it does not.
        for rows in (1, 272 - longer):
            counts = np.array([1] * rows + [longer])
            table = np.full((len(counts), self._table_width), self.pages, dtype=np.int32)
            step = PagedStep.of(self._cache, table, np.zeros_like(counts), counts)
            ids = torch.zeros(1, counts.sum(), dtype=torch.int64, device=self.device)
            self._model.decode(ids, step, positions=ids[0, :1])
