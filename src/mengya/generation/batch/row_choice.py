"""The next token of each row of a step, where every row has settings and a grammar of its own.

Takes sequences and the logits after them; gives tokens and log-probabilities that may still be in
flight from the device: nothing here waits for it before `PendingTokens.wait`.
Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mengya.generation.batch.request import TokenLogprob
from mengya.generation.batch.sequence import SequenceState
from mengya.generation.sampling import (
    History,
    RowSettings,
    choose,
    setting_columns,
    uniforms,
)
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
        """Call only after the device is done."""
        tops = zip(self.ids.tolist(), self.values.tolist(), strict=True)
        own = self.own_R.tolist()
        return [(one, tuple(zip(*top, strict=True))) for one, top in zip(own, tops, strict=True)]


class PendingTokens:
    """Tokens that were chosen on the device and are being copied to the host.

    Attributes:
        sequences: whose tokens they are.
        chosen_R: [R] int64, on the device.
        constrained: whether a grammar must accept one of them before the next choice.
    """

    def __init__(
        self,
        sequences: list[SequenceState],
        chosen_R: Tensor,
        open_R: list[bool] | None,
        logprobs: tuple[list[int], Logprobs] | None,
    ) -> None:
        """
        Args:
            open_R: False where the grammar allows no token.
            logprobs: the rows that asked for them, and theirs.
        """
        self.sequences, self.chosen_R, self.constrained = sequences, chosen_R, open_R is not None
        self._open_R, self._logprobs = open_R, logprobs
        self._tokens_R = _to_host(chosen_R)
        self._copied: torch.cuda.Event | None = None
        if chosen_R.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()

    def wait(self) -> tuple[list[int | None], dict[int, TokenLogprob]]:
        """Block until the tokens (None: the grammar allows none) and log-probabilities, by row, are there."""
        if self._copied is not None:
            self._copied.synchronize()
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
    """The settings of each row of the engine's tables, and the choice itself."""

    def __init__(self, max_running: int, vocab_size: int, device: torch.device) -> None:
        self._columns = np.zeros((max_running, 7), dtype=np.float32)
        self._seeds = np.zeros(max_running, dtype=np.uint64)
        self._prompt_lengths = np.zeros(max_running, dtype=np.int64)
        self._special = np.zeros(max_running, dtype=bool)  # a bias, a grammar or log-probabilities
        self._max_running, self._vocab_size, self._device = max_running, vocab_size, device
        self._history: History | None = None  # allocated with the first request that has penalties

    def enter(self, sequence: SequenceState) -> None:
        """Set up the row of a sequence that was admitted, or admitted again."""
        params, row = sequence.request.params, sequence.row
        self._columns[row] = setting_columns(params)
        self._seeds[row] = sequence.seed
        request = sequence.request
        self._prompt_lengths[row] = len(request.prompt)
        asks = request.grammar is not None or request.top_logprobs is not None
        self._special[row] = asks or bool(params.logit_bias)
        if RowSettings(self._columns[row : row + 1], {}).penalized:
            if self._history is None:
                self._history = History.empty(self._max_running, self._vocab_size, self._device)
            prompt = sequence.request.prompt
            self._history.restart(row, prompt, sequence.tokens[len(prompt) :])

    def choose(
        self,
        ready: list[SequenceState],
        rows_R: np.ndarray,
        lengths_R: np.ndarray,
        logits_RV: Tensor,
    ) -> PendingTokens:
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
            history = self._history.rows(rows)
        uniform_R = uniforms(self._seeds[rows_R], lengths_R - self._prompt_lengths[rows_R])
        chosen_R = choose(filtered_RV, history, settings, uniform_R)
        if rows is not None and self._history is not None:
            self._history.add(chosen_R, rows)
        logprobs = _asked_logprobs(ready, logits_RV, chosen_R) if special else None
        return PendingTokens(ready, chosen_R, open_R, logprobs)


def _allowed(ready: list[SequenceState], logits_RV: Tensor) -> Tensor | None:
    """What grammars allow, [R, V] bool on the CPU; None: everything."""
    if all(sequence.request.grammar is None for sequence in ready):
        return None
    allowed_RV = torch.ones(logits_RV.shape, dtype=torch.bool)
    for row, sequence in enumerate(ready):
        if sequence.request.grammar is not None:
            sequence.request.grammar.fill(allowed_RV[row])
    return allowed_RV


def _asked_logprobs(
    ready: list[SequenceState], logits_RV: Tensor, chosen_R: Tensor
) -> tuple[list[int], Logprobs] | None:
    asked = {
        row: most for row, s in enumerate(ready) if (most := s.request.top_logprobs) is not None
    }
    if not asked:
        return None
    at = to_device(np.array(list(asked)), chosen_R.device)
    return list(asked), Logprobs.of(logits_RV[at], chosen_R[at], max(asked.values()))


def _to_host(tensor: Tensor) -> Tensor:
    """A copy that is complete once the device has done all work queued so far."""
    if not tensor.is_cuda:
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
