"""model.bin of llama2.c, version 0, from a Llama-shaped model.

Takes a model and the order of its rows; gives a file. Knows no tokenizer.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from mengya.errors import UserError
from mengya.export.llama2c.layout import EPSILON, THETA, Header, rotary_angles
from mengya.models.attention import Attention
from mengya.models.causal_lm import CausalLM, DecoderLayer
from mengya.models.config.model import ModelConfig
from mengya.models.feed_forward import SwiGLU

_INSTEAD = "write to=gguf instead, which holds it"


def check_model(config: ModelConfig) -> None:
    """Refuse what model.bin has no place for.

    Raises:
        UserError: says what, and what to type instead.
    """
    reason = next(_problems(config), None)
    if reason is not None:
        raise UserError(f"llama2.c holds Llama-shaped models only, and this one has {reason}")


def _problems(config: ModelConfig) -> Iterator[str]:
    if config.model_type != "llama":
        yield {
            "qwen3": f"qk-norm (Qwen3): {_INSTEAD}, or train with model.qk_norm=false",
            "qwen2": f"biases (Qwen2): {_INSTEAD}, or train with model.attention_bias=false",
            "deepseek_v3": f"latent attention (DeepseekV3): {_INSTEAD}",
        }.get(config.model_type, f"experts ({config.model_type}): {_INSTEAD}")
    if config.head_width * config.num_attention_heads != config.hidden_size:
        yield (
            f"head_dim={config.head_width}, not hidden_size / num_attention_heads = "
            f"{config.hidden_size}/{config.num_attention_heads}: {_INSTEAD}"
        )
    if config.head_width % 2:
        yield f"heads of an odd width ({config.head_width}): {_INSTEAD}"
    if config.rope_parameters.rope_type != "default":
        yield f"scaled positions (rope_type={config.rope_parameters.rope_type}): {_INSTEAD}"
    if config.rope_theta != THETA:
        yield f"rope_theta={config.rope_theta:g}, and run.c rotates with {THETA:g}: {_INSTEAD}"


def header_of(config: ModelConfig) -> Header:
    return Header(
        config.hidden_size, config.intermediate_size, config.num_hidden_layers,
        config.num_attention_heads, config.num_key_value_heads,
        config.vocab_size if config.tie_word_embeddings else -config.vocab_size,
        config.max_position_embeddings,
    )  # fmt: skip


def write_model(model: CausalLM, rows: Sequence[int], path: Path) -> None:
    """The header, then every tensor in the order of the layout; one is in memory at a time.

    Args:
        rows: of the embedding, in the order of the file.
    """
    header = header_of(model.config)
    with path.open("wb") as file:
        file.write(struct.pack("<7i", *astuple(header)))
        for name in header.tensors():
            for tensor in _tensors(model, name, rows):
                file.write(np.ascontiguousarray(tensor, dtype="<f4").data)


def _tensors(model: CausalLM, name: str, rows: Sequence[int]) -> Iterator[np.ndarray]:
    """The tensor of that name, layer by layer.

    run.c adds 1e-5 in every norm. Where the model was trained with another epsilon, the residual stream is
    scaled by s = sqrt(1e-5 / epsilon), which every norm but for its epsilon ignores: x s / sqrt(mean(x^2) s^2
    + 1e-5) = x / sqrt(mean(x^2) + epsilon). So what is added to the stream is multiplied by s: the embedding,
    and the outputs of attention and feed-forward; a tied head gives s times the logits, which the last norm
    takes back.
    """
    config = model.config
    scale = math.sqrt(EPSILON / config.rms_norm_eps)
    if name.startswith("freqs"):
        angles = rotary_angles(config.max_position_embeddings, config.head_width)
        yield np.cos(angles) if name == "freqs_cos" else np.sin(angles)
    elif name == "tok_embeddings":
        yield _array(model.model.embed_tokens.weight[list(rows)] * scale)
    elif name == "output":
        yield _array(model.lm_head.weight[list(rows)])
    elif name == "norm":
        yield _array(model.model.norm.weight / (scale if config.tie_word_embeddings else 1.0))
    else:
        for layer in model.model.layers:
            yield _array(_of_layer(cast(DecoderLayer, layer), name, scale))


def _of_layer(layer: DecoderLayer, name: str, scale: float) -> Tensor:
    attention, mlp = cast(Attention, layer.self_attn), cast(SwiGLU, layer.mlp)
    match name:
        case "attention_norm":
            return layer.input_layernorm.weight
        case "wq":
            return _neighbours(attention.q_proj.weight, attention.head_dim)
        case "wk":
            return _neighbours(attention.k_proj.weight, attention.head_dim)
        case "wv":
            return attention.v_proj.weight
        case "wo":
            return attention.o_proj.weight * scale
        case "ffn_norm":
            return layer.post_attention_layernorm.weight
        case "w1":
            return mlp.gate_proj.weight
        case "w2":
            return mlp.down_proj.weight * scale
        case _:
            return mlp.up_proj.weight


def _neighbours(weight_OI: Tensor, head_dim: int) -> Tensor:
    """Rows of each head in another order: ours rotates pairs (i, i + D/2), llama2.c pairs (2i, 2i + 1)."""
    return weight_OI.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)


@torch.no_grad()
def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32).contiguous().numpy()
