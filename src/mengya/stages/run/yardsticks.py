"""The yardsticks of loop.yardsticks, as a function that training can call: it knows nothing of evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mengya.errors import UserError
from mengya.evaluation.registry import YARDSTICKS
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig
from mengya.models.causal_lm import CausalLM
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
    config: RunConfig, tokenizer_folder: Path, chat: bool
) -> Callable[[CausalLM], dict[str, float]]:
    """Gives the figures of all yardsticks of the run by their names, those per byte left out.

    Args:
        chat: whether the model is trained on conversations, and answers in its chat template.
    """
    tokenizer = load_tokenizer(tokenizer_folder)
    settings = YardstickConfig(limit=config.loop.yardstick_limit)

    def figures(model: CausalLM) -> dict[str, float]:
        subject = Subject(model, tokenizer, config.run_dir, chat)
        return {
            measurement.name: measurement.value
            for name in config.loop.yardsticks
            for measurement in YARDSTICKS[name](subject, settings).measurements
            if measurement.unit != "bits/byte"
        }

    return figures
