"""What few models use, each behind one interface: nothing else in the package knows these by name."""

from __future__ import annotations

import torch

from mengya.models.attention_mask import PatternMaker
from mengya.models.config.model import ModelConfig
from mengya.models.extensions.clex import Clex
from mengya.models.extensions.shifted_groups import ShiftedGroups
from mengya.models.rope import LearnedRope

_LEARNED_ROPES: dict[str, type[LearnedRope]] = {"clex": Clex}


def learned_rope(
    config: ModelConfig, device: torch.device | str | None = None
) -> LearnedRope | None:
    """The frequencies of a rope_type that is trained; None for the others."""
    made = _LEARNED_ROPES.get(config.rope_parameters.rope_type)
    return None if made is None else made(config, device)


def training_pattern(
    config: ModelConfig, shifted_sparse_ratio: float | None
) -> PatternMaker | None:
    """What each token sees in training (`CausalLM.training_pattern`); None: full attention.

    Raises:
        UserError: the model cannot be trained so.
    """
    return None if shifted_sparse_ratio is None else ShiftedGroups(config, shifted_sparse_ratio)
