"""The next token of each row of a step, where every row has settings and a grammar of its own.

Takes sequences and the logits after them; gives tokens and log-probabilities that may still be on
their way from the device: nothing here waits for it, until they are asked for.
Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mengya.generation.batch.request import TokenLogprob
from mengya.generation.batch.sequence import Sequence
from mengya.generation.random_numbers import uniforms
from mengya.generation.sampling import History, RowSettings, choose, setting_columns
from mengya.runtime.device import to_device


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Of the chosen token, [R], and of the likeliest, ids and values [R, most]; on the host soon."""

    own_R: Tensor
    ids: Tensor
    values: Tensor

    @classmethod
    def of(cls, logits_RV: Tensor, chosen_R: Tensor, most: int) -> Logprobs:
        logprobs_RV = logits_RV.float().log_softmax(-1)
        values, ids = logprobs_RV.topk(most, -1)
        own_R = logprobs_RV.gather(-1, chosen_R[:, None])[:, 0]
        return cls(_to_host(own_R), _to_host(ids), _to_host(values))

    def rows(self) -> list[TokenLogprob]:
        """To be asked for after the device is done."""
        tops = zip(self.ids.tolist(), self.values.tolist(), strict=True)
        own = self.own_R.tolist()
        return [(one, tuple(zip(*top, strict=True))) for one, top in zip(own, tops, strict=True)]


class Flight:
    """Tokens that were chosen and are on their way to the host.

    Attributes:
        sequences: whose tokens they are.
        chosen_R: [R] int64, on the device.
        ruled: whether a grammar waits for one of them.
    """

    def __init__(
        self,
        sequences: list[Sequence],
        chosen_R: Tensor,
        open_R: list[bool] | None,
        logprobs: tuple[list[int], Logprobs] | None,
    ) -> None:
        """
        Args:
            open_R: False where the grammar lets nothing follow.
            logprobs: those rows that asked for them.
        """
        self.sequences, self.chosen_R, self.ruled = sequences, chosen_R, open_R is not None
        self._open_R, self._logprobs = open_R, logprobs
        self._tokens_R = _to_host(chosen_R)
        self._landed: torch.cuda.Event | None = None
        if chosen_R.is_cuda:
            self._landed = torch.cuda.Event()
            self._landed.record()

    def land(self) -> tuple[list[int | None], dict[int, TokenLogprob]]:
        """The tokens (None: nothing may follow), and log-probabilities by row; waits for them."""
        if self._landed is not None:
            self._landed.synchronize()
        tokens: list[int | None] = self._tokens_R.tolist()
        if self._open_R is not None:
            tokens = [
                t if is_open else None for t, is_open in zip(tokens, self._open_R, strict=True)
            ]
        if self._logprobs is None:
            return tokens, {}
        rows, found = self._logprobs
        return tokens, dict(zip(rows, found.rows(), strict=True))


class RowChooser:
    """What the rows of the engine's tables want, and the choice itself."""

    def __init__(self, max_running: int, vocab_size: int, device: torch.device) -> None:
        self._columns = np.zeros((max_running, 7), dtype=np.float32)
        self._seeds = np.zeros(max_running, dtype=np.uint64)
        self._prompts = np.zeros(max_running, dtype=np.int64)  # how long
        self._special = np.zeros(max_running, dtype=bool)  # a bias, a grammar or log-probabilities
        self._max_running, self._vocab_size, self._device = max_running, vocab_size, device
        self._history: History | None = None  # made when the first request wants penalties

    def enter(self, sequence: Sequence) -> None:
        """A sequence has got its row, at first or once more."""
        params, row = sequence.request.params, sequence.row
        self._columns[row] = setting_columns(params)
        self._seeds[row] = sequence.seed
        request = sequence.request
        self._prompts[row] = len(request.prompt)
        asks = request.grammar is not None or request.top_logprobs is not None
        self._special[row] = asks or bool(params.logit_bias)
        if RowSettings(self._columns[row : row + 1], {}).penalized:
            if self._history is None:
                self._history = History.empty(self._max_running, self._vocab_size, self._device)
            prompt = sequence.request.prompt
            self._history.restart(row, prompt, sequence.tokens[len(prompt) :])

    def choose(
        self, ready: list[Sequence], rows_R: np.ndarray, lengths_R: np.ndarray, logits_RV: Tensor
    ) -> Flight:
        """A token for each.

        Args:
            rows_R: int64, their rows.
            lengths_R: int64, how long each is before this token.
        """
        special = bool(self._special[rows_R].any())
        biases = {i: s.request.params.logit_bias for i, s in enumerate(ready)} if special else {}
        settings = RowSettings(self._columns[rows_R], biases)
        allowed_RV = _allowed(ready, logits_RV) if special else None
        open_R, filtered_RV = None, logits_RV
        if allowed_RV is not None:
            open_R = allowed_RV.any(-1).tolist()
            filtered_RV = logits_RV.masked_fill(~allowed_RV.to(self._device), float("-inf"))
        rows = history = None
        if settings.penalized:
            assert self._history is not None  # `enter` made it
            rows = to_device(rows_R, self._device)
            history = self._history.take(rows)
        uniform_R = uniforms(self._seeds[rows_R], lengths_R - self._prompts[rows_R])
        chosen_R = choose(filtered_RV, history, settings, uniform_R)
        if rows is not None and self._history is not None:
            self._history.add(chosen_R, rows)
        logprobs = _asked_logprobs(ready, logits_RV, chosen_R) if special else None
        return Flight(ready, chosen_R, open_R, logprobs)


def _allowed(ready: Rows[Sequence], logits_RV: Tensor) -> Tensor | None:
    """What grammars let through, [R, V] bool on the CPU; None: everything."""
    if all(sequence.request.grammar is None for sequence in ready):
        return None
    allowed_RV = torch.ones(logits_RV.shape, dtype=torch.bool)
    for row, sequence in enumerate(ready):
        if sequence.request.grammar is not None:
            sequence.request.grammar.fill(allowed_RV[row])
    return allowed_RV


def _asked_logprobs(
    ready: Rows[Sequence], logits_RV: Tensor, chosen_R: Tensor
) -> tuple[list[int], Logprobs] | None:
    asked = {
        row: most for row, s in enumerate(ready) if (most := s.request.top_logprobs) is not None
    }
    if not asked:
        return None
    at = to_device(np.array(list(asked)), chosen_R.device)
    return list(asked), Logprobs.of(logits_RV[at], chosen_R[at], max(asked.values()))


def _to_host(tensor: Tensor) -> Tensor:
    """A copy that is there when the device has done all it was told so far."""
    if not tensor.is_cuda:
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
