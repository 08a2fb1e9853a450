"""log p of continuations, pass by pass (passes.py), with logits at the positions that are scored only.

Takes a model and a pass; gives (log p, whether greedy decoding would write it) of every continuation. Knows
no text. Shapes: R rows, S positions, N scored positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mengya.evaluation.exams.model.passes import Ids, Pass
from mengya.models.cache.kv import KVCache
from mengya.models.causal_lm import CausalLM

Likelihood = tuple[float, bool]


@torch.inference_mode()
def pass_likelihoods(
    model: CausalLM, each: Pass, continuations: Sequence[Sequence[Ids]]
) -> list[list[Likelihood]]:
    """
    Args:
        model: in evaluation mode.
        continuations: by number of the sequence: what is scored at its end, one or more; the sequence lacks
            the last token of each.

    Returns:
        one list a row of the pass, in its order.
    """
    device = model.lm_head.weight.device
    ids_RS = _right_padded([ids for _, ids in each.rows], device)
    wanted = [continuations[number] for number in each.sequences]
    longest = [max(map(len, ends)) for ends in wanted]
    starts = [len(ids) - count for (_, ids), count in zip(each.rows, longest, strict=True)]
    width = ids_RS.shape[1]
    scored = [
        row * width + start + at
        for row, (start, count) in enumerate(zip(starts, longest, strict=True))
        for at in range(count)
    ]
    positions_N = torch.tensor(scored, device=device)
    if each.contexts:
        cache = _computed_contexts(model, each, width)
        logits_NV = model.decode(ids_RS, cache, positions=positions_N)[0]
    else:
        logits_NV = model.decode(ids_RS, None, _positions(model, each, ids_RS), positions_N)[0]
    return _score(logits_NV, wanted, longest)


def _computed_contexts(model: CausalLM, each: Pass, width: int) -> KVCache:
    """Keys and values of each row's context."""
    device = model.lm_head.weight.device
    longest = max(map(len, each.contexts))
    padding = [longest - len(ids) for ids in each.contexts]
    rows = [[0] * pad + list(ids) for pad, ids in zip(padding, each.contexts, strict=True)]
    padding_B = torch.tensor(padding, device=device) if any(padding) else None
    cache = KVCache(model.config.num_hidden_layers, longest + width, padding_B)
    none = torch.zeros(
        1, dtype=torch.int64, device=device
    )  # no logits are wanted; one row is least
    model.decode(torch.tensor(rows, device=device), cache, positions=none)
    return cache.take(torch.tensor([context for context, _ in each.rows], device=device))


def _score(
    logits_NV: Tensor, wanted: Sequence[Sequence[Ids]], longest: Sequence[int]
) -> list[list[Likelihood]]:
    """Of each continuation the last of its row's scored positions."""
    places: list[int] = []
    tokens: list[int] = []
    first = 0
    for ends, count in zip(wanted, longest, strict=True):
        for end in ends:
            places += range(first + count - len(end), first + count)
            tokens += end
        first += count
    device = logits_NV.device
    places_T, tokens_T = torch.tensor([places, tokens], device=device)
    logps_NV = logits_NV.float().log_softmax(-1)
    logps = logps_NV[places_T, tokens_T].double().tolist()
    greedy = (logits_NV.argmax(-1)[places_T] == tokens_T).tolist()
    scores: list[list[Likelihood]] = []
    at = 0
    for ends in wanted:
        row: list[Likelihood] = []
        for end in ends:
            row.append((sum(logps[at : at + len(end)]), all(greedy[at : at + len(end)])))
            at += len(end)
        scores.append(row)
    return scores


def _positions(model: CausalLM, each: Pass, ids_RS: Tensor) -> Tensor | None:
    """Positions that end with each text, where a rope_type depends on its length; else None."""
    if not model.config.rope_parameters.depends_on_length:
        return None
    positions_RS = torch.zeros_like(ids_RS)
    for row, (_, ids) in enumerate(each.rows):
        positions_RS[row, : len(ids)] = torch.arange(len(ids))
    return positions_RS


def _right_padded(rows: Sequence[Ids], device: torch.device) -> Tensor:
    """Ids [R, S], zeros on the right, which a causal model does not see."""
    longest = max(map(len, rows))
    return torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in rows], device=device)
