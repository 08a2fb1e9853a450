"""What llama.cpp cannot compute: each refused with the reason and what to type instead.

Facts are those of the llama.cpp in llama-cpp-python 0.3.36, read in its source and measured by
tests/export/gguf/test_llama_cpp.py. Needs no file and no llama.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator

from mengya.errors import UserError
from mengya.models.config.model import ModelConfig

_INSTEAD = "to=hf writes it for transformers and vLLM"


def check_model(config: ModelConfig) -> None:
    """Refuse a shape that llama.cpp would refuse, or compute wrongly without a word.

    Raises:
        UserError: all reasons.
    """
    if reasons := [*_positions(config), *_layers(config), *_experts(config)]:
        raise UserError(f"llama.cpp cannot run this model: {'; '.join(reasons)}. {_INSTEAD}")


def _positions(config: ModelConfig) -> Iterator[str]:
    rope = config.rope_parameters
    match rope.rope_type:
        case "dynamic":
            yield (
                "rope_type=dynamic changes its base with the length of a text, which llama.cpp has not"
            )
        case "longrope":
            yield (
                "rope_type=longrope has two sets of factors, and llama.cpp's choice between them does not "
                "follow the length of a text"
            )
        case "yarn":
            yield from _yarn(config)
        case learned if rope.learned:
            yield (
                f"rope_type={learned} is learned; frozen (mengya merge CHECKPOINT out=FOLDER factor=N) it is "
                "longrope, whose choice of factors llama.cpp does not make by the length of a text"
            )
        case _:
            pass


def _yarn(config: ModelConfig) -> Iterator[str]:
    rope = config.rope_parameters
    fixed = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}
    for name, value in fixed.items():
        if getattr(rope, name) != value:
            yield f"YaRN with {name}={getattr(rope, name)}: it always takes {value}"


def _layers(config: ModelConfig) -> Iterator[str]:
    if config.sliding_window is not None:
        yield (
            f"sliding_window={config.sliding_window}: its {config.model_type} lets every layer see all tokens"
        )
    heads, hidden = config.num_attention_heads, config.hidden_size
    if config.model_type in ("qwen2", "qwen2_moe") and heads * config.head_width != hidden:
        yield (
            f"num_attention_heads={heads} of head_dim={config.head_width} are not hidden_size={hidden} wide, "
            f"which its {config.model_type} takes for granted"
        )


def _experts(config: ModelConfig) -> Iterator[str]:
    kind, norm = config.model_type, config.norm_topk_prob
    if kind == "qwen2_moe" and norm and config.num_experts_per_tok < config.num_experts:
        yield "norm_topk_prob=true: its qwen2moe never scales the chosen experts' weights to one"
    if kind == "qwen2_moe" and config.first_k_dense_replace:
        yield (
            f"first_k_dense_replace={config.first_k_dense_replace}: its qwen2moe has experts in every layer"
        )
