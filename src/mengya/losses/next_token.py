"""Next-token prediction: pretraining when every token has a label, SFT when only the answers have one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mengya.batch import IGNORE_INDEX, Batch
from mengya.losses.token_nll import LossSums, Model, balance_sum, log_partition, token_nll


@dataclass(frozen=True)
class NextToken:
    """L = sum_t (-log p(x_t | x_<t) + z_loss log^2 Z_t) / N, with N the labelled tokens of the step.

    Z is the softmax's denominator; the second term keeps logits from drifting (PaLM,
    arXiv:2204.02311, section 5).

    Attributes:
        token_nll: as `token_nll.token_nll`, or that function compiled.
        labelled_only: compute logits only where there is a label; not for a compiled model, as their
            number changes with every batch (recompiles: dynamic shape).
        z_loss: weight of log^2 Z, 0 for none; PaLM's is 1e-4.
        log_partition: as `token_nll.log_partition`, or that function compiled.
        linear_nll: as `cross_entropy.linear_nll`, computes both terms from the last hidden states chunk by
            chunk, so that the logits of the batch never exist (on a GPU: less memory and no slower).
    """

    token_nll: Callable[[Tensor, Tensor], Tensor] = token_nll
    labelled_only: bool = False
    z_loss: float = 0.0
    log_partition: Callable[[Tensor, Tensor], Tensor] = log_partition
    linear_nll: Callable[..., Tensor] | None = None

    def items(self, batch: Batch) -> int:
        return int((batch.labels != IGNORE_INDEX).sum())

    def __call__(self, model: Model, batch: Batch) -> LossSums:
        inputs, labels = batch.model_inputs(), batch.labels
        if self.linear_nll is not None:
            fused_ce, z_loss = self.linear_nll, self.z_loss
            output = model(**inputs, head=lambda h, w, rows: fused_ce(h, w, labels, z_loss, rows))
            loss, nll = output.head_output[0], output.head_output[1]
            metrics = {"nll": nll.detach()}
            if z_loss:
                metrics["z_loss"] = (loss - nll).detach()
        else:
            if self.labelled_only:
                inputs["positions"] = (labels.flatten() != IGNORE_INDEX).nonzero().flatten()
                labels = labels.flatten()[inputs["positions"]][None]
            output = model(**inputs)
            loss = self.token_nll(output.head_output, labels).sum()
            metrics = {"nll": loss.detach()}
            if self.z_loss:
                lse = self.log_partition(output.head_output, labels)
                z_loss_term = self.z_loss * lse.square().sum()
                loss, metrics["z_loss"] = loss + z_loss_term, z_loss_term.detach()
        balance = balance_sum(output, (batch.labels != IGNORE_INDEX).sum(dim=1))
        if balance is not None:
            loss, metrics["aux_loss"] = loss + balance, balance.detach()
        return LossSums(loss, metrics)
