"""transformers' models and trainers under the benchmark's clock.

Takes a shape of ours and a trainer class (transformers' Trainer, TRL's); gives the stock model of the
same shape and the same class with a clock in it. The trainers' own loops run, nothing is copied.
"""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import torch
import transformers
from timing import Clock, Timing
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
)

from mengya.models.config.model import ModelConfig
from mengya.models.hf.config import config_to_hf


def stock_model(config: ModelConfig, weights: nn.Module | None = None) -> PreTrainedModel:
    """transformers' class of this shape, attention by SDPA, fp32 weights.

    Args:
        weights: one of our models, whose parameters it gets; they have the same names.
    """
    stock = AutoConfig.for_model(**config_to_hf(config, torch.float32))
    model = AutoModelForCausalLM.from_config(stock, attn_implementation="sdpa")
    if weights is not None:
        model.load_state_dict(weights.state_dict())
    model.config.use_cache = False
    return model


def quiet() -> None:
    """Nothing but the benchmark's own lines and errors."""
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore", FutureWarning)


def common_arguments(clock: Clock) -> dict[str, Any]:
    """TrainingArguments that all peers get: bf16, fused AdamW, no logs, no checkpoints, loader workers."""
    cuda = clock.device.type == "cuda"
    return {
        "output_dir": tempfile.mkdtemp(prefix="mengya-peer-"),
        "max_steps": clock.total,
        "bf16": cuda,
        "use_cpu": not cuda,
        "optim": "adamw_torch_fused",
        "learning_rate": 1e-4,
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "lr_scheduler_type": "constant",
        "logging_strategy": "no",
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 4 if cuda else 0,
        "dataloader_persistent_workers": cuda,
        "dataloader_pin_memory": cuda,
        "dataloader_drop_last": True,
    }


def clocked(trainer_class: type, clock: Clock) -> type:
    """The same trainer, which tells `clock` of its steps and their real tokens."""

    class Clocked(trainer_class):
        def training_step(self, model: nn.Module, inputs: dict[str, Any], *rest: Any) -> Tensor:
            clock.begin()
            clock.count(real_tokens(inputs))
            return super().training_step(model, inputs, *rest)

    return Clocked


class StepDone(TrainerCallback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.clock.step_done()


def real_tokens(inputs: dict[str, Any]) -> Tensor | int:
    """Tokens that are no padding, left on the device; batches without a mask have none."""
    mask = inputs.get("attention_mask")
    return mask.sum() if isinstance(mask, Tensor) else inputs["input_ids"].numel()


def timed(trainer: Any, clock: Clock) -> Timing:
    """Train for `clock.total` steps and forget the trainer."""
    from accelerate.state import AcceleratorState

    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train()
        return clock.result()
    finally:
        AcceleratorState._reset_state(True)  # the next trainer may want other settings
