"""Which layers a list of names selects for LoRA, in the terms of PEFT.

Takes a model and names as a person writes them; gives PEFT's target_modules and target_parameters.
"""

from __future__ import annotations

from torch import nn

from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.models.moe import Experts


def lora_targets(model: CausalLM, wanted: list[str] | None) -> tuple[list[str], list[str]]:
    """(names of linear layers, names of expert parameters) that `wanted` means; None: all projections.

    Raises:
        UserError: a name that no layer has, with those that there are.
    """
    layers, parameters = [], []
    # In these classes PEFT takes every gate_proj, up_proj and down_proj for experts of an older
    # layout and doubles the rank: dense and shared layers cannot be named in its folder.
    no_dense = model.config.model_type in ("qwen3_moe", "qwen2_moe", "glm4_moe", "deepseek_v3")
    for name, module in model.model.named_modules(prefix="model"):
        if isinstance(module, nn.Linear) and not (no_dense and ".mlp." in name):
            layers.append(name)
        elif isinstance(module, Experts):
            parameters += [f"{name}.{parameter}" for parameter, _ in module.named_parameters()]
    if not model.config.tie_word_embeddings:
        layers.append("lm_head")
    known = list(dict.fromkeys(name.rpartition(".")[2] for name in layers + parameters))
    if wanted is None:
        wanted = [name for name in known if name != "lm_head"]
    unmatched = [
        target
        for target in wanted
        if not any(f".{name}".endswith(f".{target}") for name in layers + parameters)
    ]
    if unmatched or not wanted:
        raise UserError(
            f"lora.targets: no layer named {', '.join(unmatched) or '(empty list)'}; "
            f"this model has {', '.join(known)}"
        )
    # PEFT matches by suffix; expert parameters are distinguished by the module that holds them.
    chosen = [t for t in wanted if any(f".{name}".endswith(f".{t}") for name in layers)]
    suffixes = {name.partition(".mlp.")[2] for name in parameters}
    in_experts = sorted(
        f"mlp.{suffix}"
        for suffix in suffixes
        if any(f".mlp.{suffix}".endswith(f".{target}") for target in wanted)
    )
    return chosen, in_experts
