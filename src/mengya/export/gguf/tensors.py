"""The tensors of a model under their names and in the layouts of llama.cpp.

Takes a `CausalLM`; gives names and fp32 tensors, one after another. Knows no file and no quantization.
Where llama.cpp computes a little differently, the weights are changed so that the answers are the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import torch
from torch import Tensor

from mengya.export.gguf.metadata import architecture, own_amplitude
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig

_LATENT_EPS = 1e-6  # of transformers' DeepseekV3, whatever its rms_norm_eps

_TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "self_attn.q_a_proj.weight": "attn_q_a.weight",
    "self_attn.q_a_layernorm.weight": "attn_q_a_norm.weight",
    "self_attn.q_b_proj.weight": "attn_q_b.weight",
    "self_attn.kv_a_proj_with_mqa.weight": "attn_kv_a_mqa.weight",
    "self_attn.kv_a_layernorm.weight": "attn_kv_a_norm.weight",
    "self_attn.kv_b_proj.weight": "attn_kv_b.weight",  # split in two below
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "mlp.experts.gate_up_proj": "ffn_gate_up_exps.weight",  # split in two below
    "mlp.experts.down_proj": "ffn_down_exps.weight",
    "mlp.shared_expert_gate.weight": "ffn_gate_inp_shexp.weight",
    **{
        f"mlp.{module}.{part}_proj.weight": f"ffn_{part}_shexp.weight"
        for module in ("shared_expert", "shared_experts")
        for part in ("gate", "up", "down")
    },
}


def gguf_tensors(model: CausalLM) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that the file holds; a tied output layer only where llama.cpp insists on one."""
    config = model.config
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and has_tied_output(config):
            continue
        stored = gguf_name(name)
        if not stored.startswith("blk."):
            yield stored, tensor
            continue
        _, layer, part = stored.split(".", 2)
        for inner, value in _of_layer(part, tensor, config):
            yield f"blk.{layer}.{inner}", value.contiguous()


def gguf_name(name: str) -> str:
    """Of a parameter; a few are split or renamed on their way into the file."""
    if name in _TOP:
        return _TOP[name]
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", name)
    assert found is not None, name
    return f"blk.{found[1]}.{_LAYER[found[2]]}"


def has_tied_output(config: ModelConfig) -> bool:
    """Whether the file has no output matrix of its own. llama.cpp's qwen2moe has no tied one."""
    return config.tie_word_embeddings and config.model_type != "qwen2_moe"


def _of_layer(name: str, tensor: Tensor, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    match name:
        case "ffn_norm.weight" if architecture(config) == "glm4moe":
            yield "post_attention_norm.weight", tensor
        case "ffn_gate_inp.weight" if config.model_type == "qwen3_moe":
            yield name, tensor
            if architecture(config) == "glm4moe":
                yield from _nothing_shared(tensor, config)
        case "ffn_gate_up_exps.weight":
            gate, up = tensor.chunk(2, dim=1)
            yield "ffn_gate_exps.weight", gate
            yield "ffn_up_exps.weight", up
        case "ffn_gate_inp_shexp.weight":
            yield name, tensor[0]
        case "attn_kv_b.weight":
            yield from _keys_and_values(tensor, config)
        case _ if config.kv_lora_rank is not None and name.startswith("attn_"):
            yield name, _latent_weight(name, tensor, config)
        case "attn_q.weight" | "attn_k.weight" if config.model_type == "llama":
            yield name, _halves_to_pairs(tensor, config.head_width)
        case _:
            yield name, tensor


def _nothing_shared(router_EH: Tensor, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """What glm4moe has and Qwen3Moe has not, as zeros: a shared expert, and the routers' bias."""
    experts, hidden = router_EH.shape
    width = config.expert_width
    yield "exp_probs_b.bias", router_EH.new_zeros(experts)
    yield "ffn_gate_shexp.weight", router_EH.new_zeros(width, hidden)
    yield "ffn_up_shexp.weight", router_EH.new_zeros(width, hidden)
    yield "ffn_down_shexp.weight", router_EH.new_zeros(hidden, width)


def _halves_to_pairs(weight_OI: Tensor, head_dim: int) -> Tensor:
    """llama.cpp's llama rotates neighbours, ours the two halves of a head: x0 x1 .. y0 y1 -> x0 y0 x1 y1."""
    return weight_OI.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)


def _keys_and_values(weight_OR: Tensor, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """W_b in the two parts that llama.cpp absorbs into queries and outputs: [H, rank, nope], [H, v, rank]."""
    nope, width = config.qk_nope_head_dim, config.v_head_dim
    assert nope is not None and width is not None
    keys, values = weight_OR.unflatten(0, (config.num_attention_heads, -1)).split([nope, width], 1)
    yield "attn_k_b.weight", keys.transpose(1, 2)
    yield "attn_v_b.weight", values


def _latent_weight(name: str, tensor: Tensor, config: ModelConfig) -> Tensor:
    """Latent attention as llama.cpp computes it.

    Its norms of the latents add rms_norm_eps, ours 1e-6: norm(s c) with s^2 = rms_norm_eps / 1e-6 is ours.
    It has no factor of scores or of cosines that fits every scaling of positions: both go into the weights.
    """
    to_norm = math.sqrt(config.rms_norm_eps / _LATENT_EPS)
    rope, rank = config.rope_parameters, config.kv_lora_rank
    amplitude = own_amplitude(config) if rope.rope_type == "linear" else rope.amplitude
    match name:
        case "attn_q_a.weight":
            return tensor * to_norm
        case "attn_kv_a_mqa.weight":
            latent, key = tensor.split([rank, config.rotary_width])
            return torch.cat((latent * to_norm, key * amplitude))
        case "attn_q.weight" | "attn_q_b.weight":
            heads = tensor.unflatten(0, (config.num_attention_heads, -1)) * rope.mla_score_factor
            heads[:, -config.rotary_width :] *= amplitude
            return heads.flatten(0, 1)
        case _:
            return tensor
