"""The negative log-likelihood of every token of many sequences, in few forward passes.

Takes a model (a callable of ids that gives logits) and id lists; gives one tensor of nats per list.
Knows nothing of text. Shapes: B sequences, S positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mengya.batch import IGNORE_INDEX
from mengya.evaluation.progress import OnProgress, silent
from mengya.losses.token_nll import token_nll

BATCH_LOGITS = 1 << 26  # logits of one forward pass: 256 MB in fp32


@torch.inference_mode()
def sequence_nlls(
    model: nn.Module, sequences: Sequence[Sequence[int]], on_progress: OnProgress = silent
) -> list[Tensor]:
    """-log p of each token given those before it: n ids give n-1 fp32 nats, on the CPU.

    Sequences of similar length share a batch, padded on the right, which a causal model does not see.
    A sequence must fit the model's context: the caller cuts it. `on_progress` is called after every batch.
    """
    device = next(model.parameters()).device
    vocab_size = int(getattr(model, "config").vocab_size)  # noqa: B009 (nn.Module types it as Tensor)
    nlls: list[Tensor] = [torch.empty(0)] * len(sequences)
    done = 0
    with evaluating(model):
        for batch in _batches(sequences, max(1, BATCH_LOGITS // vocab_size)):
            S = len(sequences[batch[-1]]) - 1
            if S < 1:
                continue
            ids = torch.zeros(len(batch), S + 1, dtype=torch.int64)
            labels_BS = torch.full((len(batch), S), IGNORE_INDEX)
            positions_BS = torch.zeros(len(batch), S, dtype=torch.int64)
            for row, index in enumerate(batch):
                sequence = torch.tensor(sequences[index])
                ids[row, : len(sequence)] = sequence
                labels_BS[row, : len(sequence) - 1] = sequence[1:]
                positions_BS[row, : len(sequence) - 1] = torch.arange(len(sequence) - 1)
            # Positions end with each text, as a rope_type may depend on its length.
            logits_BSV = model(ids[:, :-1].to(device), positions_BS.to(device)).head_output
            nll_BS = token_nll(logits_BSV, labels_BS.to(device)).cpu()
            for row, index in enumerate(batch):
                nlls[index] = nll_BS[row, : max(0, len(sequences[index]) - 1)].clone()
            done += len(batch)
            on_progress(done, len(sequences))
    return nlls


def _batches(sequences: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[list[int]]:
    """Indices from short to long, in groups whose padded size stays below `batch_tokens`."""
    batch: list[int] = []
    for index in sorted(range(len(sequences)), key=lambda i: len(sequences[i])):
        if batch and (len(batch) + 1) * len(sequences[index]) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, afterwards back in its previous mode."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
