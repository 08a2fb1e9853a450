"""Completions of many requests at once: continuous batching over a paged KV memory.

Takes requests of token ids at any time; gives token events step by step. Each step is one forward
pass (Yu et al. 2022, Orca): a new token of every decoding request together with a piece of the
prompts that have just come. Knows nothing of text or HTTP; one thread owns it and calls it.
Shapes: R rows whose next token is chosen, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

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
from mengya.generation.batch.row_choice import Flight, RowChooser
from mengya.generation.batch.scheduler import Scheduler, Work
from mengya.generation.batch.sequence import Sequence
from mengya.generation.random_numbers import row_seed
from mengya.generation.sampling import check_logit_bias
from mengya.models.causal_lm import CausalLM


class BatchEngine:
    """Runs requests to their ends, many at a time.

    What a request gets does not depend on who runs beside it, but for the rounding of matrix
    products, whose kernels change with the number of rows.

    Attributes:
        context: longest prompt and completion together: the model's context, or less when the KV
            memory is smaller.
    """

    def __init__(
        self,
        model: CausalLM,
        settings: EngineConfig,
        select_adapter: Callable[[str | None], None] | None = None,
    ) -> None:
        """
        Args:
            model: on its device, its rope_type not dynamic; is put into evaluation mode. Its weights must not change later.
            select_adapter: makes the model compute with an adapter, None with none.
        """
        if model.config.sliding_window is not None:
            raise UserError(
                f"the batch engine attends to every page, not to sliding_window="
                f"{model.config.sliding_window}; `mengya chat` and transformers run this model"
            )
        rope = model.config.rope_parameters
        if rope.learned:
            raise UserError(
                f"rope_type={rope.rope_type} rotates each text by its own length, so texts cannot share a "
                "batch; freeze its factor first: mengya merge CHECKPOINT out=FOLDER factor=4"
            )
        if rope.rope_type == "dynamic" or rope.long_factor != rope.short_factor:
            raise UserError(
                f"rope_type={rope.rope_type} rotates each text by its own length, so texts cannot share a batch; "
                "write rope_type=yarn or linear in the model's config.json"
            )
        self._pass = ForwardPass(model, settings, select_adapter)
        self._has_adapters = select_adapter is not None
        self._settings, self._vocab_size = settings, model.config.vocab_size
        self.context, device = self._pass.context, self._pass.device
        on_cpu = device.type == "cpu"
        self._scheduler = Scheduler(
            PageAllocator(self._pass.pages),
            settings.page_size,
            settings.max_running,
            settings.prefill_chunk or (128 if on_cpu else 4096),
            settings.prefix_reuse,
            self.context,
        )
        self._chooser = RowChooser(settings.max_running, self._vocab_size, device)
        self._overlaps = not on_cpu if settings.overlap is None else settings.overlap
        self._flight: Flight | None = None
        self._alive: dict[int, Sequence] = {}
        self._cancelled: list[TokenEvent] = []
        self._next_number = 0
        self._generated = self._steps = 0

    def add(self, request: Request) -> int:
        """Put a request at the end of the waiting line; returns its number.

        Raises:
            UserError: it can never run: the prompt is empty, too long or names unknown tokens, or
                so does logit_bias; an adapter where there is none.
            EngineFull: the line is full; later it may be shorter.
        """
        self._check(request)
        if len(self._scheduler.waiting) >= self._settings.max_waiting:
            raise EngineFull(
                f"{self._settings.max_waiting} requests are waiting already; try again later"
            )
        params, number = request.params, self._next_number
        self._next_number += 1
        sequence = Sequence(
            number=number,
            request=request,
            limit=min(len(request.prompt) + params.max_new_tokens, self.context),
            seed=row_seed(params.seed),
            tokens=list(request.prompt),
            length=len(request.prompt),
        )
        self._alive[number] = sequence
        self._scheduler.waiting.append(sequence)
        return number

    def cancel(self, request_id: int) -> None:
        """End a request now: its pages and its row are free before the next step.

        The next step gives its last event. Unknown and finished requests are ignored.
        """
        sequence = self._alive.get(request_id)
        if sequence is not None:
            self._remove(sequence)
            self._cancelled.append(sequence.event(None, finish="cancelled"))

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do or to tell."""
        return bool(self._alive or self._cancelled or self._flight)

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
        """Admit who fits, run the model once, choose a token for each request that is ready for one.

        With `overlap` the device is given its next step before the tokens of the last one are fetched, so
        that it never waits for Python: events come one call later, and who ends by a stop token has
        been computed once too often.
        """
        events, self._cancelled = self._cancelled, []
        before, self._flight = self._flight, None
        if before is not None and before.ruled:
            # A grammar must know a token before it can rule the next.
            events += self._land(before)
            before = None
        work = self._scheduler.plan()
        for sequence in work.entered:
            self._chooser.enter(sequence)
        if work.sequences:
            self._steps += 1
            self._flight = self._launch(work, before)
        if before is not None:
            events += self._land(before)
        if self._flight is not None and not self._overlaps:
            before, self._flight = self._flight, None
            events += self._land(before)
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

    def _launch(self, work: Work, before: Flight | None) -> Flight | None:
        """One forward pass and the choices after it; does not wait for the device.

        Args:
            before: tokens that are on their way and go into this pass.
        """
        logits_RV = self._pass.run(work, self._scheduler.tables, before)
        self._scheduler.advance(work)
        if not work.ready:
            return None
        rows = np.array([s.row for s in work.ready])
        lengths = np.array([s.length for s in work.ready])
        flight = self._chooser.choose(work.ready, rows, lengths, logits_RV)
        for place, sequence in enumerate(work.ready):
            sequence.length += 1
            sequence.flight = place
        return flight

    def _land(self, flight: Flight) -> list[TokenEvent]:
        """Fetch the tokens of a flight; tells them."""
        tokens, logprobs = flight.land()
        events: list[TokenEvent] = []
        for place, (sequence, token) in enumerate(zip(flight.sequences, tokens, strict=True)):
            if not sequence.finished:
                events.append(self._take(sequence, token, logprobs.get(place)))
        return events

    def _take(
        self, sequence: Sequence, token: int | None, logprob: TokenLogprob | None
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

    def _remove(self, sequence: Sequence) -> None:
        sequence.finished = True
        self._scheduler.remove(sequence)
        del self._alive[sequence.number]
