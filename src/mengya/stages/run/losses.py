"""The losses of pretraining, SFT and DPO in the form that the device and the settings run best."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from mengya.kernels.cross_entropy import linear_nll
from mengya.losses.next_token import NextToken
from mengya.losses.token_nll import log_partition, token_nll
from mengya.models.causal_lm import CausalLM
from mengya.training.distributed.build import SingleDevice
from mengya.training.run_config import RunConfig


def pick_token_nll(config: RunConfig, strategy: SingleDevice) -> Callable[..., torch.Tensor]:
    """token_nll, fused by the compiler where the run compiles."""
    return torch.compile(token_nll) if config.compiles(strategy.device.type) else token_nll


def pick_next_token(
    config: RunConfig, strategy: SingleDevice, model: CausalLM, z_loss: float, few_labels: bool
) -> NextToken:
    """The loss of pretraining and SFT in the form that this device runs best.

    Args:
        few_labels: many positions have no label (SFT).
    """
    compiled = config.compiles(strategy.device.type)
    if strategy.device.type == "cuda" and type(model.lm_head) is nn.Linear:
        return NextToken(z_loss=z_loss, linear_nll=linear_nll)
    return NextToken(
        pick_token_nll(config, strategy),
        labelled_only=few_labels and not compiled,
        z_loss=z_loss,
        log_partition=torch.compile(log_partition) if compiled else log_partition,
    )
