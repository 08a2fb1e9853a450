"""Completions of many requests at once: continuous batching over a paged KV memory.

Takes requests of token ids at any time; gives token events step by step. Each step is one forward
pass (Yu et al. 2022, Orca): a new token of every decoding request together with a chunk of the
prompts that have just come. Knows nothing of text or HTTP; one thread owns it and calls it.

The other decode loop, `generation.engine`, is for a fixed set of prompts with any architecture, rope type
and cache; this one trades some of these (sliding windows, dynamic rope, streaming) for paged memory,
shared prefixes, CUDA graphs and grammars. Sampling and random numbers are shared; tests hold both to the
same tokens.

Shapes: R rows whose next token is chosen, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from mengya.errors import UserError
from mengya.generation.batch.forward_pass import ForwardPass
from mengya.generation.batch.page_allocator import PageAllocator
from mengya.generation.batch.request import (
    EngineConfig,
    EngineFull,
    EngineStats,
    FinishReason,
    Request,
    TokenEvent,
    TokenLogprob,
)
from mengya.generation.batch.row_choice import PendingTokens, RowChooser
from mengya.generation.batch.scheduler import Scheduler, Work
from mengya.generation.batch.sequence import SequenceState
from mengya.generation.sampling import (
    check_logit_bias,
    row_seed,
)
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig


def check_supported(config: ModelConfig) -> None:
    """Refuse what pages cannot hold.

    Raises:
        UserError: a sliding window, or a rope type that depends on the length of each text.
    """
    if config.sliding_window is not None:
        raise UserError(
            f"the batch engine attends to every page, not to sliding_window="
            f"{config.sliding_window}; `mengya chat` and transformers run this model"
        )
    rope = config.rope_parameters
    if rope.learned:
        raise UserError(
            f"rope_type={rope.rope_type} depends on the length of each text, so texts cannot share a "
            "batch; freeze its factor first: mengya merge CHECKPOINT out=FOLDER factor=4"
        )
    if rope.rope_type == "dynamic" or rope.long_factor != rope.short_factor:
        raise UserError(
            f"rope_type={rope.rope_type} depends on the length of each text, so texts cannot share a "
            "batch; write rope_type=yarn or linear in the model's config.json"
        )


class BatchEngine:
    """Runs requests to their ends, many at a time.

    What a request gets does not depend on the other requests, except through the rounding of matrix
    products, whose kernels change with the number of rows.

    Attributes:
        context: longest prompt and completion together: the model's context, or less when the KV
            memory is smaller.
        prefill_chunk: most prompt tokens in one step.
        memory_bytes: what weights and pages take; `memory.engine_memory` estimates it beforehand.
    """

    def __init__(
        self,
        model: CausalLM,
        settings: EngineConfig,
        select_adapter: Callable[[str | None], None] | None = None,
    ) -> None:
        """
        Args:
            model: on its device, its rope_type not dynamic; is put into evaluation mode. Its weights must
                not change later.
            select_adapter: makes the model compute with an adapter, None with none.
        """
        check_supported(model.config)
        self._pass = ForwardPass(model, settings, select_adapter)
        self._has_adapters = select_adapter is not None
        self._settings, self._vocab_size = settings, model.config.vocab_size
        self.context, device = self._pass.context, self._pass.device
        self.memory_bytes = self._pass.memory_bytes
        on_cpu = device.type == "cpu"
        self.prefill_chunk = settings.prefill_chunk or (128 if on_cpu else 4096)
        self._scheduler = Scheduler(
            PageAllocator(self._pass.pages),
            settings.page_size,
            settings.max_running,
            self.prefill_chunk,
            settings.prefix_reuse,
            self.context,
        )
        self._chooser = RowChooser(settings.max_running, self._vocab_size, device)
        self._overlaps = not on_cpu if settings.overlap is None else settings.overlap
        self._pending: PendingTokens | None = None
        self._unfinished: dict[int, SequenceState] = {}
        self._cancelled: list[TokenEvent] = []
        self._next_number = 0
        self._generated = self._steps = 0

    def add(self, request: Request) -> int:
        """Put a request at the end of the waiting queue; returns its number.

        Raises:
            UserError, EngineFull: as `add_all`.
        """
        return self.add_all([request])[0]

    def add_all(self, requests: Sequence[Request]) -> list[int]:
        """Put requests at the end of the waiting queue, all or none; returns their numbers.

        Raises:
            UserError: one can never run: its prompt is empty, too long or names unknown tokens, or
                so does logit_bias; an adapter where there is none.
            EngineFull: `max_waiting` requests or more are waiting already; try again later.
        """
        for request in requests:
            self._check(request)
        if len(self._scheduler.waiting) >= self._settings.max_waiting:
            raise EngineFull(
                f"{len(self._scheduler.waiting)} requests are waiting already; try again later"
            )
        return [self._queue(request) for request in requests]

    def _queue(self, request: Request) -> int:
        params, number = request.params, self._next_number
        self._next_number += 1
        sequence = SequenceState(
            number=number,
            request=request,
            limit=min(len(request.prompt) + params.max_new_tokens, self.context),
            seed=row_seed(params.seed),
            tokens=list(request.prompt),
            length=len(request.prompt),
        )
        self._unfinished[number] = sequence
        self._scheduler.waiting.append(sequence)
        return number

    def cancel(self, request_id: int) -> None:
        """End a request now: its pages and its row are free before the next step.

        The next step gives its last event. Unknown and finished requests are ignored.
        """
        sequence = self._unfinished.get(request_id)
        if sequence is not None:
            self._remove(sequence)
            self._cancelled.append(sequence.event(None, finish="cancelled"))

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to compute or to report."""
        return bool(self._unfinished or self._cancelled or self._pending)

    @property
    def stats(self) -> EngineStats:
        """Sizes now and counts so far."""
        scheduler = self._scheduler
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            free_pages=scheduler.pages.free,
            total_pages=scheduler.pages.total,
            reusable_pages=scheduler.pages.reusable,
            prefix_hits=scheduler.prefix_hits,
            prompt_tokens=scheduler.prompt_tokens,
            cached_tokens=scheduler.cached_tokens,
            generated_tokens=self._generated,
            preemptions=scheduler.preemptions,
            steps=self._steps,
        )

    @torch.inference_mode()
    def step(self) -> list[TokenEvent]:
        """Admit what fits, run the model once, choose a token for each request that is ready for one.

        With `overlap` the next step is launched before the tokens of the last one are fetched, so that
        the device never waits for Python: events come one call later, and a request that ends by a stop
        token has been computed once too often.
        """
        events, self._cancelled = self._cancelled, []
        before, self._pending = self._pending, None
        if before is not None and before.constrained:
            # A grammar must know a token before it can constrain the next.
            events += self._collect(before)
            before = None
        work = self._scheduler.plan()
        for sequence in work.entered:
            self._chooser.enter(sequence)
        if work.sequences:
            self._steps += 1
            self._pending = self._launch(work, before)
        if before is not None:
            events += self._collect(before)
        if self._pending is not None and not self._overlaps:
            before, self._pending = self._pending, None
            events += self._collect(before)
        return events

    def _check(self, request: Request) -> None:
        prompt, vocab_size = request.prompt, self._vocab_size
        if not prompt:
            raise UserError("the prompt is empty; a completion needs at least one token")
        if len(prompt) >= self.context:
            raise UserError(
                f"the prompt has {len(prompt)} tokens and the context is {self.context}; shorten it"
            )
        if not 0 <= min(prompt) <= max(prompt) < vocab_size:
            raise UserError(f"the prompt holds token ids outside 0 to {vocab_size - 1}")
        if request.top_logprobs is not None and not 0 <= request.top_logprobs <= vocab_size:
            raise UserError(
                f"top_logprobs={request.top_logprobs} must be from 0 to {vocab_size}, the vocabulary"
            )
        if request.adapter is not None and not self._has_adapters:
            raise UserError(
                f"there is no adapter {request.adapter!r}: this engine has the base only"
            )
        check_logit_bias(request.params, vocab_size)

    def _launch(self, work: Work, before: PendingTokens | None) -> PendingTokens | None:
        """One forward pass and the choices after it; does not wait for the device.

        Args:
            before: tokens still on the device that go into this pass.
        """
        logits_RV = self._pass.run(work, self._scheduler.tables, before)
        self._scheduler.advance(work)
        if not work.ready:
            return None
        rows = np.array([s.row for s in work.ready])
        lengths = np.array([s.length for s in work.ready])
        pending = self._chooser.choose(work.ready, rows, lengths, logits_RV)
        for place, sequence in enumerate(work.ready):
            sequence.length += 1
            sequence.pending_index = place
        return pending

    def _collect(self, pending: PendingTokens) -> list[TokenEvent]:
        """Wait for tokens; their events."""
        tokens, logprobs = pending.wait()
        events: list[TokenEvent] = []
        for place, (sequence, token) in enumerate(zip(pending.sequences, tokens, strict=True)):
            if not sequence.finished:
                events.append(self._append(sequence, token, logprobs.get(place)))
        return events

    def _append(
        self, sequence: SequenceState, token: int | None, logprob: TokenLogprob | None
    ) -> TokenEvent:
        request = sequence.request
        if token is None or token in request.stop_token_ids:
            self._remove(sequence)
            return sequence.event(None, None, "stop")
        sequence.tokens.append(token)
        self._generated += 1
        finish: FinishReason | None = None
        if request.grammar is not None:
            request.grammar.accept(token)
            if request.grammar.finished:
                finish = "stop"
        if finish is None and len(sequence.tokens) >= sequence.limit:
            finish = "length"
        if finish:
            self._remove(sequence)
        return sequence.event(token, logprob, finish)

    def _remove(self, sequence: SequenceState) -> None:
        sequence.finished = True
        self._scheduler.remove(sequence)
        del self._unfinished[sequence.number]
