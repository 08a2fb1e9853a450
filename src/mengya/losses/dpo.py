"""Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290).

Rows hold pairs as neighbouring documents: the chosen completion of pair p is document 2p, the
rejected one 2p+1. Labels cover the completions only.

Shapes: B rows, S positions, D documents per row (D = 2P), P pairs per row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.batch import IGNORE_INDEX, Batch
from mengya.losses.token_nll import LossSums, Model, ModelOutput, balance_sum, token_nll


@dataclass(frozen=True)
class DPO:
    """-log sigmoid(beta * ((log pi_w - log pi_l) - (log ref_w - log ref_l))), mean over pairs.

    Attributes:
        reference: the frozen model that training starts from; called without gradients.
        beta: strength of the tie to the reference.
        label_smoothing: assumed share of flipped pairs (conservative DPO).
        sft_weight: weight of the chosen completion's mean negative log-likelihood, added to the loss.
        token_nll: as `token_nll.token_nll`, or that function compiled.
    """

    reference: Callable[[Batch], ModelOutput]
    beta: float = 0.1
    label_smoothing: float = 0.0
    sft_weight: float = 0.0
    token_nll: Callable[[Tensor, Tensor], Tensor] = token_nll

    def items(self, batch: Batch) -> int:
        return int(_pair_mask(_label_counts(batch)).sum())

    def __call__(self, model: Model, batch: Batch) -> LossSums:
        output = model(**batch.model_inputs())
        with torch.no_grad():
            reference = self.reference(batch)
        counts_BD = _label_counts(batch)
        pairs_BP = _pair_mask(counts_BD)
        pi_BD = completion_logps(output.head_output, batch, self.token_nll)
        ref_BD = completion_logps(reference.head_output, batch, self.token_nll)

        rewards_BD = self.beta * (pi_BD - ref_BD)
        chosen_BP, rejected_BP = rewards_BD[:, 0::2], rewards_BD[:, 1::2]
        h_BP = chosen_BP - rejected_BP
        eps = self.label_smoothing
        loss_BP = -(1 - eps) * F.logsigmoid(h_BP) - eps * F.logsigmoid(-h_BP)
        if self.sft_weight:
            nll_BP = -pi_BD[:, 0::2] / counts_BD[:, 0::2].clamp_min(1)
            loss_BP = loss_BP + self.sft_weight * nll_BP

        def over_pairs(values_BP: Tensor) -> Tensor:
            return torch.where(pairs_BP, values_BP, 0.0).sum()

        loss = over_pairs(loss_BP)
        metrics = {
            "dpo_loss": loss,
            "accuracy": over_pairs((h_BP > 0).float()),
            "margin": over_pairs(h_BP),
            "rewards_chosen": over_pairs(chosen_BP),
            "rewards_rejected": over_pairs(rejected_BP),
        }
        balance = balance_sum(output, pairs_BP.sum(dim=1))
        if balance is not None:
            metrics["aux_loss"] = balance
            loss = loss + balance
        return LossSums(loss, {name: value.detach() for name, value in metrics.items()})


def completion_logps(
    logits_BSV: Tensor,
    batch: Batch,
    token_nll: Callable[[Tensor, Tensor], Tensor] = token_nll,
) -> Tensor:
    """log p(completion | prompt) of every document, summed over its labelled tokens: [B, D] fp32."""
    nll_BS = token_nll(logits_BSV, batch.labels)
    return -_sum_by_document(nll_BS, batch)


def _label_counts(batch: Batch) -> Tensor:
    return _sum_by_document((batch.labels != IGNORE_INDEX).float(), batch)


def _pair_mask(counts_BD: Tensor) -> Tensor:
    """[B, P] bool: both completions have at least one labelled token."""
    return (counts_BD[:, 0::2] > 0) & (counts_BD[:, 1::2] > 0)


def _sum_by_document(values_BS: Tensor, batch: Batch) -> Tensor:
    B = values_BS.shape[0]
    D = (batch.cu_seqlens.numel() - 1) // B
    D += D % 2
    # Padding (document -1) carries no label, so its zeros may fall on document 0.
    sums_BD = values_BS.new_zeros(B, D)
    return sums_BD.scatter_add(1, batch.document_ids.clamp_min(0), values_BS)
