"""The yardsticks of loop.yardsticks, as a function that training can call: it knows nothing of evaluation.

They measure a copy in the dtype of `mengya evaluate`, which gives the same figures: a yardstick may pack the
weights of its model for decoding, and remember what the model answered.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch

from mengya.errors import UserError
from mengya.evaluation.registry import YARDSTICKS
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.open_checkpoint import pick_dtype
from mengya.tokenizer.load import load_tokenizer
from mengya.training.run_config import RunConfig


def check_yardsticks(config: RunConfig) -> None:
    """Refuse a yardstick that is not there, before anything is read.

    Raises:
        UserError: names it, and those that there are.
    """
    for name in config.loop.yardsticks:
        if name not in YARDSTICKS:
            raise UserError(f"loop.yardsticks={name} is not one of {', '.join(YARDSTICKS)}")


def yardstick_figures(
    config: RunConfig, tokenizer_folder: Path, chat: bool, say: Callable[[str], None]
) -> Callable[[CausalLM], dict[str, float]]:
    """Gives the figures of all yardsticks of the run by their names, those per byte left out.

    One that does not fit the model is left out and said once: it is not worth a run.

    Args:
        chat: whether the model is trained on conversations, and answers in its chat template.
    """
    tokenizer = load_tokenizer(tokenizer_folder)
    settings = YardstickConfig(limit=config.loop.yardstick_limit)
    left_out: set[str] = set()

    def leave_out(name: str, why: str) -> None:
        if name not in left_out:
            left_out.add(name)
            say(f"warning: yardstick {name} is left out: {why}")

    def figures(model: CausalLM) -> dict[str, float]:
        copied = own_copy(model)
        subject = Subject(copied, tokenizer, config.run_dir, chat)
        found: dict[str, float] = {}
        with copied.uncompiled():
            for name in config.loop.yardsticks:
                try:
                    measured = YARDSTICKS[name](subject, settings).measurements
                except UserError as error:
                    leave_out(name, str(error))
                    continue
                for measurement in measured:
                    if not measurement.items:
                        leave_out(measurement.name, measurement.note)
                    elif measurement.unit != "bits/byte":
                        found[measurement.name] = measurement.value
        return found

    return figures


def own_copy(model: CausalLM) -> CausalLM:
    """A model in evaluation mode that shares no memory with `model`; bf16 on a GPU, as `mengya evaluate`."""
    copied = copy.deepcopy(model).requires_grad_(False).eval()
    in_fp32 = all(parameter.dtype == torch.float32 for parameter in model.parameters())
    if (
        model.config.quantization is not None or not in_fp32
    ):  # rounded from fp32; 4-bit layers of QLoRA
        return copied
    return copied.to(pick_dtype("auto", model.lm_head.weight.device))
