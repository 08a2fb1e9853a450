"""A CLEX model frozen at one factor becomes a model that transformers' own classes hold (rope_type longrope)."""

from __future__ import annotations

import torch

from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.config.rope import RopeParameters
from mengya.models.extensions.clex import Clex


@torch.no_grad()
def fold_clex(model: CausalLM, factor: float) -> CausalLM:
    """The same weights with CLEX's frequencies at `factor` for texts of every length.

    Raises:
        UserError: the model has no CLEX, or was not trained for this factor.
    """
    clex = model.model.clex
    if not isinstance(clex, Clex):
        raise UserError(
            f"factor={factor} freezes CLEX, and this model's rope_type is "
            f"{model.config.rope_parameters.rope_type}; leave factor out"
        )
    if not 1 <= factor <= clex.factor:
        raise UserError(f"factor={factor} must be between 1 and {clex.factor}, CLEX's own factor")
    device = model.lm_head.weight.device
    now = clex.frequencies(torch.tensor(float(factor), device=device)).double()
    exponents = torch.arange(0, clex.width, 2, dtype=torch.float64, device=device) / clex.width
    stretch = (1 / (clex.theta**exponents * now)).tolist()
    rope = RopeParameters(
        rope_type="longrope", long_factor=stretch, short_factor=stretch, attention_factor=1.0,
        factor=max(factor, 1.0), original_max_position_embeddings=clex.trained,
        partial_rotary_factor=model.config.rope_parameters.partial_rotary_factor,
    )  # fmt: skip
    values = model.config.model_dump() | {
        "rope_parameters": rope,
        "max_position_embeddings": max(int(clex.trained * factor), clex.trained),
    }
    folded = CausalLM(ModelConfig(**values), device="meta").to_empty(device=device)
    folded.to(model.lm_head.weight.dtype)
    folded.tie_weights()
    folded.expert_load.zero_()
    folded.load_state_dict(
        {name: t for name, t in model.state_dict().items() if not name.startswith("model.clex.")}
    )
    return folded.train(model.training)
