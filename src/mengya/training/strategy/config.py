"""The settings of the engines. Values only; nothing runs here."""

from __future__ import annotations

from typing import Literal

from mengya.config import Config


class StrategyConfig(Config):
    name: Literal["auto", "ddp", "fsdp"] = "auto"
    """ddp: every process holds the whole model. fsdp: weights, gradients and optimizer are sharded over
    the processes (FSDP2). auto: ddp when a launcher started several processes."""
    reduce_dtype: Literal["fp32", "bf16"] = "fp32"
    """fsdp: dtype in which gradients are added over the processes; bf16 halves the traffic."""
    reshard_after_forward: bool = True
    """fsdp: free each layer's gathered weights after its forward pass and gather them again in the
    backward pass; false is faster and holds all weights in between."""
