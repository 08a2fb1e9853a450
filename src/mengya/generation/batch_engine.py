"""Completions of many requests at once: continuous batching over a paged KV memory.

Takes requests of token ids at any time; gives token events step by step. Each step is one forward
pass (Yu et al. 2022, Orca): a new token of every decoding request together with a piece of the
prompts that have just come. Knows nothing of text or HTTP; one thread owns it and calls it.
Shapes: R rows whose next token is chosen, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mengya.config import UserError
from mengya.generation.page_allocator import PageAllocator
from mengya.generation.request import (
    EngineConfig,
    EngineFull,
    EngineStats,
    FinishReason,
    Request,
    TokenEvent,
    TokenLogprob,
)
from mengya.generation.row_choice import choose_next, token_logprobs
from mengya.generation.sampling import History, check_logit_bias, new_generator
from mengya.generation.scheduler import Scheduler
from mengya.generation.sequence import Sequence
from mengya.models.causal_lm import CausalLM
from mengya.models.packed_linear import pack_linears, packing_runs
from mengya.models.paged_cache import PagedCache, PagedStep, Span, tokens_that_fit


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
        if model.config.kv_lora_rank is not None:
            raise UserError(
                "the batch engine has no pages for latent attention (MLA) yet; "
                "`mengya chat` and transformers run this model"
            )
        if model.config.sliding_window is not None:
            raise UserError(
                f"the batch engine attends to every page, not to sliding_window="
                f"{model.config.sliding_window}; `mengya chat` and transformers run this model"
            )
        rope = model.config.rope_parameters
        if rope.rope_type == "clex":
            raise UserError(
                "rope_type=clex turns each text by its own length, so texts cannot share a batch; freeze "
                "its factor first: mengya merge CHECKPOINT out=FOLDER factor=4"
            )
        if rope.rope_type == "dynamic" or rope.long_factor != rope.short_factor:
            raise UserError(
                f"rope_type={rope.rope_type} turns each text by its own length, so texts cannot share a batch; "
                "write rope_type=yarn or linear in the model's config.json"
            )
        self._model = model.eval()
        # Selecting an adapter may change weights, of which packed layers hold a copy.
        if settings.pack_weights and select_adapter is None and packing_runs(model):
            self._model = pack_linears(model)
        self._device = model.lm_head.weight.device
        self._settings = settings
        self._select_adapter = select_adapter
        self._adapter: str | None = None
        if select_adapter is not None:
            select_adapter(None)
        dtype = model.model.norm.weight.dtype
        size = settings.page_size
        tokens = settings.cache_tokens or _default_cache_tokens(model, settings, dtype)
        total = max(tokens // size, 1)
        self.context = min(model.config.context_length, total * size)
        self._cache = PagedCache(model.config, total, size, dtype, self._device)
        chunk = settings.prefill_chunk or (128 if self._device.type == "cpu" else 2048)
        self._scheduler = Scheduler(
            PageAllocator(total), size, settings.max_running, chunk, settings.prefix_reuse
        )
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
        history = None
        if params.needs_history:
            vocab_size = self._model.config.vocab_size
            history = History.of([request.prompt], vocab_size, self._device)
        alike = params.model_copy(update={"seed": None, "max_new_tokens": 1})
        sequence = Sequence(
            number=number,
            request=request,
            limit=min(len(request.prompt) + params.max_new_tokens, self.context),
            sampling_key=alike.model_dump_json(),
            generator=new_generator(params.seed),
            history=history,
            tokens=list(request.prompt),
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
        return bool(self._alive or self._cancelled)

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
        """Admit who fits, run the model once, choose a token for each request that is ready for one."""
        events, self._cancelled = self._cancelled, []
        work = self._scheduler.plan()
        if not work:
            return events
        self._steps += 1
        self._use_adapter(work[0][0].request.adapter)
        ready: list[Sequence] = []
        parts: list[Tensor] = []
        for sequence, count, logits_SV in self._run(work):
            if sequence.echoing:
                self._echo(sequence, logits_SV)
            self._scheduler.advance(sequence, count)
            if not sequence.pending:
                ready.append(sequence)
                parts.append(logits_SV[-1:])
        if ready:
            logits_RV = torch.cat(parts) if len(parts) > 1 else parts[0]
            chosen = choose_next(ready, logits_RV)
            events += [self._take(s, *choice) for s, choice in zip(ready, chosen, strict=True)]
        return events

    def _check(self, request: Request) -> None:
        prompt, vocab_size = request.prompt, self._model.config.vocab_size
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
        if request.adapter is not None and self._select_adapter is None:
            raise UserError(
                f"there is no adapter {request.adapter!r}: this engine has the base only"
            )
        check_logit_bias(request.params, vocab_size)

    def _use_adapter(self, adapter: str | None) -> None:
        if adapter != self._adapter:
            assert self._select_adapter is not None  # `add` has refused adapters without it
            self._select_adapter(adapter)
            self._adapter = adapter

    def _run(self, work: list[tuple[Sequence, int]]) -> list[tuple[Sequence, int, Tensor]]:
        """One forward pass; with each sequence the logits that are wanted of it, [S or 1 or 0, V]."""
        ids = [t for s, count in work for t in s.tokens[s.stored : s.stored + count]]
        wanted: list[int] = []
        sizes: list[int] = []
        end = 0
        for sequence, count in work:
            end += count
            some = count if sequence.echoing else int(count == sequence.pending)
            wanted += range(end - some, end)
            sizes.append(some)
        # Not model(...): a compiled model would compile again for every length.
        logits_NV = self._model.forward(
            torch.tensor([ids], device=self._device),
            cache=PagedStep(self._cache, [Span(s.pages, s.stored, n) for s, n in work]),
            logits_at=torch.tensor(wanted, dtype=torch.int64, device=self._device),
        ).logits[0]
        parts = logits_NV.split(sizes)
        return [(s, count, part) for (s, count), part in zip(work, parts, strict=True)]

    def _echo(self, sequence: Sequence, logits_SV: Tensor) -> None:
        """Note the log-probabilities of the prompt's tokens that these logits predict."""
        prompt = sequence.request.prompt
        # After a preemption the first positions come a second time.
        skipped = len(sequence.echoed) - 1 - sequence.stored
        predicted = prompt[len(sequence.echoed) : sequence.stored + len(logits_SV) + 1]
        if predicted:
            logits = logits_SV[skipped : skipped + len(predicted)]
            chosen = torch.tensor(predicted, device=self._device)
            sequence.echoed += token_logprobs(logits, chosen, sequence.request.top_logprobs or 0)

    def _take(
        self, sequence: Sequence, token: int | None, logprob: TokenLogprob | None
    ) -> TokenEvent:
        request = sequence.request
        if token is None or token in request.stop_token_ids:
            self._remove(sequence)
            return sequence.event(None, finish="stop")
        sequence.tokens.append(token)
        self._generated += 1
        if request.grammar is not None:
            request.grammar.accept(token)
        finish: FinishReason | None = None
        if request.grammar is not None and request.grammar.finished:
            finish = "stop"
        elif len(sequence.tokens) >= sequence.limit:
            finish = "length"
        if finish:
            self._remove(sequence)
        return sequence.event(token, logprob, finish)

    def _remove(self, sequence: Sequence) -> None:
        self._scheduler.remove(sequence)
        del self._alive[sequence.number]


def _default_cache_tokens(model: CausalLM, settings: EngineConfig, dtype: torch.dtype) -> int:
    """Full contexts for all that may run, or what fits; one context at least."""
    size, context = settings.page_size, model.config.context_length
    fitting = tokens_that_fit(model.config, dtype, model.lm_head.weight.device)
    rounded = -(-context // size) * size
    return max(min(settings.max_running * rounded, fitting), rounded)
