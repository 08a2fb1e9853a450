"""The next token of each row of a step, where every row has settings and a grammar of its own.

Takes sequences and the logits after them; gives tokens and log-probabilities. Rows with the same
settings are chosen together by `sampling.choose`, the one way there is.
Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows

import torch
from torch import Tensor

from mengya.generation.request import TokenLogprob
from mengya.generation.sampling import History, choose
from mengya.generation.sequence import Sequence


def choose_next(
    ready: Rows[Sequence], logits_RV: Tensor
) -> list[tuple[int | None, TokenLogprob | None]]:
    """For each row a token (None: its grammar lets nothing follow), and log-probabilities if asked for."""
    allowed_RV = _allowed(ready, logits_RV)
    if allowed_RV is None:
        filtered_RV, open_R = logits_RV, [True] * len(ready)
    else:
        open_R = allowed_RV.any(-1).tolist()
        filtered_RV = logits_RV.masked_fill(~allowed_RV, float("-inf"))
    groups: dict[str, list[int]] = {}
    for row, sequence in enumerate(ready):
        if open_R[row]:
            groups.setdefault(sequence.sampling_key, []).append(row)
    chosen_R = torch.zeros(len(ready), dtype=torch.int64, device=logits_RV.device)
    for rows in groups.values():
        members = [ready[row] for row in rows]
        logits = filtered_RV if len(rows) == len(ready) else filtered_RV[rows]
        chosen_R[rows] = _choose_alike(members, logits)
    logprobs = _asked_logprobs(ready, logits_RV, chosen_R)
    tokens = [
        token if goes_on else None for token, goes_on in zip(chosen_R.tolist(), open_R, strict=True)
    ]
    return [(token, logprobs.get(row)) for row, token in enumerate(tokens)]


def token_logprobs(logits_RV: Tensor, chosen_R: Tensor, most: int) -> list[TokenLogprob]:
    """Log-probabilities of the chosen token and of the `most` likeliest, for each row."""
    logprobs_RV = logits_RV.float().log_softmax(-1)
    values, ids = logprobs_RV.topk(most, -1)
    own = logprobs_RV.gather(-1, chosen_R[:, None])[:, 0].tolist()
    tops = zip(ids.tolist(), values.tolist(), strict=True)
    return [(one, tuple(zip(*top, strict=True))) for one, top in zip(own, tops, strict=True)]


def _allowed(ready: Rows[Sequence], logits_RV: Tensor) -> Tensor | None:
    """What grammars let through, [R, V] bool; None: everything."""
    if all(sequence.request.grammar is None for sequence in ready):
        return None
    allowed_RV = torch.ones(logits_RV.shape, dtype=torch.bool)
    for row, sequence in enumerate(ready):
        if sequence.request.grammar is not None:
            sequence.request.grammar.fill(allowed_RV[row])
    return allowed_RV.to(logits_RV.device)


def _choose_alike(members: Rows[Sequence], logits_RV: Tensor) -> Tensor:
    """Tokens of rows with the same settings, [R]; their histories gain them."""
    histories = [s.history for s in members if s.history is not None]
    chosen_R = choose(
        logits_RV,
        History.together(histories) if histories else None,
        members[0].request.params,
        [s.generator for s in members],
    )
    for row, history in enumerate(histories):
        history.add(chosen_R[row : row + 1])
    return chosen_R


def _asked_logprobs(
    ready: Rows[Sequence], logits_RV: Tensor, chosen_R: Tensor
) -> dict[int, TokenLogprob]:
    asked = {
        row: s.request.top_logprobs
        for row, s in enumerate(ready)
        if s.request.top_logprobs is not None
    }
    if not asked:
        return {}
    rows = list(asked)
    found = token_logprobs(logits_RV[rows], chosen_R[rows], max(asked.values()))
    return dict(zip(rows, found, strict=True))
