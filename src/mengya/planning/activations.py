"""Bytes that autograd keeps for the backward pass, from the shape of the model and the run.

Counted tensor by tensor from the layers as they are written: `tests/planning/test_memory.py` compares
them with the real ones (saved_tensors_hooks).
Widths below are numbers per position of one layer; c is the bytes of a number in the dtype of matrix
products, which the residual stream has too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.token_row_layers import RowsEmbedding


@dataclass(frozen=True)
class MemorySettings:
    """What decides memory in addition to the model.

    Attributes:
        rows, length: of a micro-batch on one device.
        compute_bytes: of a number in matrix products: 2 under autocast, 4 in fp32.
        compiled: torch.compile, whose partition of the graph keeps less.
        on_cpu: attention by a mask, norms in pieces.
        optimizer: optimizer.name.
        devices, sharded: with FSDP weights, gradients and optimizer are split over the devices, and
            half-precision weights gathered layer by layer.
        fp8: feed-forward layers keep 8-bit copies (precision=fp8).
        keeps_gathered: strategy.reshard_after_forward=false.
        reference: DPO's frozen model; `reference_copy` when it is one of its own (no LoRA).
        labelled: share of the positions that get logits.
    """

    rows: int
    length: int
    compute_bytes: Literal[2, 4]
    compiled: bool
    on_cpu: bool = False
    optimizer: str = "adamw"
    gradient_checkpointing: bool = False
    fp8: bool = False
    devices: int = 1
    sharded: bool = False
    keeps_gathered: bool = False
    reference: bool = False
    reference_copy: bool = False
    labelled: float = 1.0


def kept_bytes(model: CausalLM, s: MemorySettings) -> float:
    """Bytes per position kept for the backward pass, logits not counted."""
    config = model.config
    layers = [_layer(config, index, s) for index in range(config.num_hidden_layers)]
    residual = s.compute_bytes
    ends = _norm(config.hidden_size, residual, s) + config.hidden_size * s.compute_bytes
    ends += 8 * 2 + 8  # ids, positions; the log-sum of the loss
    if isinstance(model.model.embed_tokens, RowsEmbedding):
        ends += 8 + 1  # which trained row an id has, and whether it has one
    if s.gradient_checkpointing:
        return len(layers) * config.hidden_size * residual + max(layers) + ends
    return sum(layers) + ends


def _norm(width: int, in_bytes: int, s: MemorySettings, groups: int = 1) -> float:
    """What an RMSNorm keeps: its input and 1 / rms; on a CPU in eager mode the normalized input as well.

    Eager makes an fp32 copy of a half-precision input and keeps that.
    """
    if s.compiled:
        return width * in_bytes + 4 * groups
    pieces = 2 if s.on_cpu else 1
    return width * 4 * pieces + 4 * groups


def _kernels(s: MemorySettings) -> bool:
    """Our Triton kernels and attention by boundaries, which share heads, run (CUDA, half precision)."""
    return not s.on_cpu and s.compute_bytes == 2


def _layer(config: ModelConfig, index: int, s: MemorySettings) -> float:
    H, c = config.hidden_size, s.compute_bytes
    latent = config.kv_lora_rank is not None
    attention = _latent_attention(config, s) if latent else _attention(config, s)
    moe = config.num_experts and index >= config.first_k_dense_replace
    feed_forward = _experts(config, s) if moe else _dense(H, config.intermediate_size, s)
    return 2 * _norm(H, c, s) + attention + feed_forward


def _attention(config: ModelConfig, s: MemorySettings) -> float:
    c, D, heads = s.compute_bytes, config.head_width, config.num_attention_heads
    q, kv = heads * D, config.num_key_value_heads * D
    kept = config.hidden_size * c + 4 * heads  # the input, the log-sum of each head
    if _kernels(s):
        # the merged product of q, k, v; then each of them normalized and rotated; the result
        return kept + (2 * (q + 2 * kv) + q) * c
    if config.qk_norm:
        kept += _norm(q, c, s, heads) + _norm(kv, c, s, config.num_key_value_heads)
    return kept + 4 * q * c  # q, keys and values repeated for every query head, the result


def _latent_attention(config: ModelConfig, s: MemorySettings) -> float:
    c, heads = s.compute_bytes, config.num_attention_heads
    rank, rope = config.kv_lora_rank or 0, config.rotary_width
    keys, value = config.head_width, config.v_head_dim or 0
    kept = config.hidden_size * c
    if config.q_lora_rank:
        kept += _norm(config.q_lora_rank, c, s) + config.q_lora_rank * c
    kept += _norm(rank, c, s) + (rank + rope) * c
    if s.on_cpu and keys != value:
        # No CPU kernel takes two widths: full scores are made, in fp32, which autocast does not reach.
        wide = c if s.compiled else 4
        return kept + heads * ((2 * keys + value) * wide + 4 * s.length + value * c)
    # The kernel on CUDA wants one width: queries, keys and values padded to it.
    return kept + heads * ((3 * max(keys, value) + value) * c + 4)


def _dense(H: int, width: int, s: MemorySettings) -> float:
    """A SwiGLU layer with its input."""
    if s.fp8:  # gate and up; their product, the input and three scales of a row
        return 2 * width * s.compute_bytes + width + H + 3 * 4
    return H * s.compute_bytes + _swiglu(width, s)


def _swiglu(width: int, s: MemorySettings) -> float:
    """Gate, up and their product; eager keeps silu(gate) as well. Its input is counted by the caller."""
    return (3 if s.compiled else 4) * width * s.compute_bytes


def _experts(config: ModelConfig, s: MemorySettings) -> float:
    c, H, k, E = s.compute_bytes, config.hidden_size, config.num_experts_per_tok, config.num_experts
    kept = H * c + 4 * 8 * k + 3 * 4 * E  # the input; orders and weights; scores
    if _kernels(s):
        kept += k * 2 * config.expert_width * c  # gate and up: all else is recomputed
    else:
        # each choice: sorted input, the expert's inside, result sorted back
        kept += k * (2 * H * c + _swiglu(config.expert_width, s))
        if config.scoring_func == "sigmoid" and c == 2:
            kept += 4 * H  # the router's input in fp32
    if config.n_shared_experts:
        gated = config.scoring_func == "softmax"
        shared = config.n_shared_experts * config.expert_width
        kept += _dense(H, shared, s) if s.fp8 else _swiglu(shared, s)  # of the same input
        kept += gated * H * c
    return kept
