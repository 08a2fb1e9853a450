"""How large a model is: counted on the meta device, where a model of any size costs no memory.

Takes a `ModelConfig`; gives numbers of parameters.
"""

from __future__ import annotations

from typing import NamedTuple

from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.moe import Experts


class ParameterCounts(NamedTuple):
    """Numbers of parameters; a tied embedding counts once."""

    total: int
    """All parameters."""
    active: int
    """Those that one token passes through (num_experts_per_tok of the routed experts)."""
    embedding: int
    """Input embedding and, when not tied, output layer."""


def parameter_counts(config: ModelConfig) -> ParameterCounts:
    """Count the parameters of `CausalLM(config)` without giving them memory."""
    model = CausalLM(config, device="meta")
    total = sum(p.numel() for p in model.parameters())
    routed = sum(
        p.numel() for m in model.modules() if isinstance(m, Experts) for p in m.parameters()
    )
    idle = (
        routed // config.num_experts * (config.num_experts - config.num_experts_per_tok)
        if routed
        else 0
    )
    embeddings = {model.model.embed_tokens.weight, model.lm_head.weight}
    return ParameterCounts(total, total - idle, sum(p.numel() for p in embeddings))
