"""The settings of the strategies. Values only; nothing runs here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from mengya.config import Config


class StrategyConfig(Config):
    name: Literal["auto", "ddp", "fsdp", "deepspeed"] = "auto"
    """ddp: every process holds the full model. fsdp: weights, gradients and optimizer are sharded over
    the processes (FSDP2). deepspeed: ZeRO as deepspeed_config says. auto: ddp when a launcher started
    several processes."""
    reduce_dtype: Literal["fp32", "bf16"] = "fp32"
    """fsdp: dtype in which gradients are reduced over the processes; bf16 halves the traffic."""
    reshard_after_forward: bool = True
    """fsdp: free each layer's gathered weights after its forward pass and gather them again in the
    backward pass; false is faster and keeps all of them in between."""
    deepspeed_config: Path | None = None
    """deepspeed: its JSON file, such as recipes/deepspeed/zero2.json; "auto" in it is filled in."""

    @model_validator(mode="after")
    def _file_of_deepspeed(self) -> StrategyConfig:
        if (self.name == "deepspeed") != (self.deepspeed_config is not None):
            raise ValueError(
                "strategy.name=deepspeed and strategy.deepspeed_config=FILE.json go together, such as "
                "recipes/deepspeed/zero2.json"
            )
        return self

    @property
    def supports_fp8(self) -> bool:
        """Whether the engine trains feed-forward layers in fp8."""
        return self.name != "deepspeed"

    @property
    def shards_weights(self) -> bool:
        """Whether a layer's weights are gathered for it, in the dtype of the computation."""
        return self.name in ("fsdp", "deepspeed")
