"""The losses of pretraining, SFT and DPO in the form that the device and the settings run best."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from mengya.kernels.cross_entropy import linear_nll
from mengya.losses.next_token import NextToken
from mengya.losses.token_nll import log_partition, token_nll
from mengya.models.causal_lm import CausalLM
from mengya.models.token_row_layers import RowsLinear
from mengya.training.execution import Execution


def pick_token_nll(execution: Execution) -> Callable[..., torch.Tensor]:
    """token_nll, fused by the compiler where the run compiles."""
    return torch.compile(token_nll) if execution.compile else token_nll


def pick_next_token(
    execution: Execution, model: CausalLM, z_loss: float, few_labels: bool
) -> NextToken:
    """The loss of pretraining and SFT in the form that this device runs best.

    Args:
        few_labels: many positions have no label (SFT).
    """
    plain = type(model.lm_head) in (nn.Linear, RowsLinear)
    if execution.device.type == "cuda" and plain:
        return NextToken(z_loss=z_loss, linear_nll=linear_nll)
    return NextToken(
        pick_token_nll(execution),
        labelled_only=few_labels and not execution.compile,
        z_loss=z_loss,
        log_partition=torch.compile(log_partition) if execution.compile else log_partition,
    )
