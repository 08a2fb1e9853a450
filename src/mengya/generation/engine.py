"""Completions of token prompts: one decode loop over a KV cache, for batches and for streams.

Takes a model, prompts of token ids and stop tokens; gives token ids. Knows nothing of text.

There are two decode loops. This one is for a fixed set of prompts: evaluation, samples while training,
`mengya chat` and streaming contexts. It runs every architecture, rope type and cache on any device, and
is short enough to be the reference. `generation.batch.engine` is for requests that come at any time (the
server): paged, continuously batched, with what that excludes. Sampling, penalties and random numbers are
shared (`sampling`); tests hold both to the same tokens.

Shapes: B prompts, S positions, V vocabulary.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from mengya.errors import UserError
from mengya.generation.sampling import (
    History,
    RowSettings,
    SamplingParams,
    check_logit_bias,
    choose,
    row_seed,
    uniforms,
)
from mengya.models.cache.kv import KVCache
from mengya.models.causal_lm import CausalLM


def generate(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    stop_token_ids: Collection[int],
    make_cache: Callable[[], KVCache] | None = None,
) -> list[list[int]]:
    """One completion for each prompt, decoded as one batch; stop tokens are not part of them.

    Args:
        make_cache: gives the cache of one prompt; prompts then run one after another. With a bounded
            cache prompts and completions may be longer than the model's context.

    Raises:
        UserError: a prompt is empty or leaves no room in the model's context; logit_bias names a token
            that the model does not have.
    """
    completions: list[list[int]] = [[] for _ in prompts]
    running = set(range(len(prompts)))
    if not prompts:
        return completions
    if make_cache is not None:
        return [
            list(stream(model, prompt, params, stop_token_ids, make_cache())) for prompt in prompts
        ]
    for tokens in _decode(model, prompts, params, None):
        for row in list(running):
            if tokens[row] in stop_token_ids:
                running.remove(row)
            else:
                completions[row].append(tokens[row])
        if not running:
            break
    return completions


def stream(
    model: CausalLM,
    prompt: Sequence[int],
    params: SamplingParams,
    stop_token_ids: Collection[int],
    cache: KVCache | None = None,
) -> Iterator[int]:
    """The tokens of one completion as they come; ends before a stop token.

    Args:
        cache: keys and values of the first `cache.seen` tokens of the prompt (fewer than all);
            grows with what is decoded, so that a later prompt with this prefix can reuse it.

    Raises:
        UserError: as `generate`, when the first token is asked for.
    """
    for (token,) in _decode(model, [prompt], params, cache):
        if token in stop_token_ids:
            return
        yield token


@torch.no_grad()
def _decode(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    cache: KVCache | None,
) -> Iterator[list[int]]:
    """The next token of every row, step by step, until max_new_tokens or the context is full."""
    bounded = cache is not None and cache.bounded
    context = sys.maxsize if bounded else model.config.context_length
    longest = _checked_length(prompts, context)
    check_logit_bias(params, model.config.vocab_size)
    budget = min(params.max_new_tokens, context - longest)
    device = model.lm_head.weight.device
    ids_BS, padding_B = _left_padded(prompts, longest, device)
    if cache is None:
        cache = KVCache(model.config.num_hidden_layers, longest + budget, padding_B)
    history = None
    rows = RowSettings.of([params] * len(prompts))
    if rows.penalized:
        history = History.of(prompts, model.config.vocab_size, device)
    seed = row_seed(params.seed)
    seeds_B = np.array([(seed + row) % 2**64 for row in range(len(prompts))], dtype=np.uint64)
    new_BS = ids_BS[:, cache.seen :]
    was_training = model.training
    model.eval()
    try:
        for step in range(budget):
            *_, logits_BV = (_last_logits(model, piece, cache) for piece in cache.pieces(new_BS))
            uniform_B = uniforms(seeds_B, np.full(len(prompts), step))
            chosen_B = choose(logits_BV, history, rows, uniform_B)
            new_BS = chosen_B[:, None]
            if history is not None:
                history.add(chosen_B)
            yield chosen_B.tolist()
    finally:
        model.train(was_training)


def _last_logits(model: CausalLM, ids_BS: Tensor, cache: KVCache) -> Tensor:
    """Logits after the last token of each row, [B, V]."""
    B, S = ids_BS.shape
    if S == 1:
        return model.decode(ids_BS, cache)[:, 0]
    last_B = torch.arange(S - 1, B * S, S, device=ids_BS.device)
    return model.decode(ids_BS, cache, positions=last_B)[0]


def _checked_length(prompts: Sequence[Sequence[int]], context: int) -> int:
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise UserError(f"prompt {number} is empty; a completion needs at least one token")
        if len(prompt) >= context:
            raise UserError(
                f"prompt {number} has {len(prompt)} tokens and the model's context is {context}; "
                "shorten it"
            )
    return max(len(prompt) for prompt in prompts)


def _left_padded(
    prompts: Sequence[Sequence[int]], longest: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Ids [B, longest], zeros on the left (any id would do: they are masked), and how many, [B]."""
    padding = [longest - len(prompt) for prompt in prompts]
    rows = [[0] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
    ids_BS = torch.tensor(rows, device=device)
    return ids_BS, torch.tensor(padding, device=device) if any(padding) else None
