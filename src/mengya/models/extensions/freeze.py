"""Learned rotary frequencies frozen at one factor: a model that transformers' own classes hold."""

from __future__ import annotations

import torch

from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM


@torch.no_grad()
def freeze_rope(model: CausalLM, factor: float) -> CausalLM:
    """The same weights with the frequencies at `factor` for texts of every length.

    Raises:
        UserError: the model has no learned frequencies, or was not trained for this factor.
    """
    rope = model.model.learned_rope
    if rope is None:
        raise UserError(
            f"factor={factor} freezes learned positions, and this model's rope_type is "
            f"{model.config.rope_parameters.rope_type}; leave factor out"
        )
    frozen = CausalLM(model.config.extend_context(rope.frozen(factor)), device="meta")
    frozen.to_empty(device=model.lm_head.weight.device).to(model.lm_head.weight.dtype)
    frozen.tie_weights()
    frozen.expert_load.zero_()
    state = model.state_dict()
    learned = {
        f"model.{model.config.rope_parameters.rope_type}.{name}" for name in rope.state_dict()
    }
    frozen.load_state_dict({name: t for name, t in state.items() if name not in learned})
    return frozen.train(model.training)
