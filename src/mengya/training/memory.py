"""Memory that one device needs for training, by part, from the shape of the model and the run.

Takes a `CausalLM` on the meta device and a `MemorySettings`; gives bytes. The activations are what
autograd keeps between forward and backward, counted tensor by tensor from the layers as they are
written: `tests/training/test_memory.py` counts the real ones (saved_tensors_hooks) against this.
Constants that can only be measured stand at the top.

Widths below are numbers per position of one layer; c is the bytes of a number in the dtype of matrix
products, which the residual stream has too.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Literal

import torch

from mengya.models.causal_lm import CausalLM
from mengya.models.config import ModelConfig
from mengya.training.optim import hidden_matrices

# Bytes for one logit, from the product to its gradient. Compiled: the logits and their gradient in c
# bytes each. Eager: logits in c, their fp32 copy's log-softmax and its gradient in 4, the gradient in c.
COMPILED_LOGIT = (2, 0)  # (times c, times 4)
EAGER_LOGIT = (1, 2)
# The loss taken chunk by chunk (losses/linear_nll.py, CUDA, not DPO): bytes of a chunk's logits, and as
# above what it makes of each. The gradient of the last hidden states waits beside.
LOGIT_CHUNK = 5 * 2**28
COMPILED_CHUNK_LOGIT = (2, 0)
EAGER_CHUNK_LOGIT = (2, 3)
REFERENCE_LOGIT = 1  # times c, without a gradient
# What torch does not count as allocated: CUDA context and kernels (bytes), and the part of activations
# that the caching allocator loses between blocks.
CUDA_CONTEXT = 0.6e9
FRAGMENTATION = 0.05
# Python with torch, transformers and the data, on a CPU (RSS, bytes).
CPU_PROCESS = 0.7e9
# Two of DDP's buckets are on the way while the others wait; gradients themselves live in the buckets.
DDP_BUCKETS = 2 * 25 * 2**20
# Copies in fp32 that a batched Muon step makes of equal matrices (momentum ahead, stacked, X with its
# square and product, the update), and how many numbers it takes at once (muon.py, _BATCH_ELEMENTS).
MUON_COPIES = 4
MUON_BATCH = 1 << 26


@dataclass(frozen=True)
class MemorySettings:
    """What decides memory besides the model.

    Attributes:
        rows, length: of a micro-batch on one device.
        compute_bytes: of a number in matrix products: 2 under autocast, 4 in fp32.
        compiled: torch.compile, whose partition of the graph keeps less.
        on_cpu: attention by a mask, norms in pieces.
        optimizer: adamw keeps two moments; muon and normuon one for the matrices of layers; galore
            is counted as adamw, an upper bound.
        devices, sharded: with FSDP weights, gradients and optimizer are split over the devices, and
            half-precision weights gathered layer by layer.
        keeps_gathered: strategy.reshard_after_forward=false.
        reference: DPO's frozen model; `reference_copy` when it is one of its own (no LoRA).
        labelled: share of the positions that get logits.
    """

    rows: int
    length: int
    compute_bytes: Literal[2, 4]
    compiled: bool
    on_cpu: bool = False
    optimizer: Literal["adamw", "muon", "normuon", "galore"] = "adamw"
    gradient_checkpointing: bool = False
    devices: int = 1
    sharded: bool = False
    keeps_gathered: bool = False
    reference: bool = False
    reference_copy: bool = False
    labelled: float = 1.0


@dataclass(frozen=True)
class Memory:
    """Bytes on one device; `allocated` is what torch.cuda.max_memory_allocated() would say."""

    weights: float
    compute_copy: float
    gradients: float
    optimizer: float
    reference: float
    activations: float
    logits: float
    communication: float
    reserve: float

    @property
    def allocated(self) -> float:
        return self.needed - self.reserve

    @property
    def needed(self) -> float:
        return sum(asdict(self).values())


def training_memory(model: CausalLM, settings: MemorySettings) -> Memory:
    """Memory at the peak, the beginning of the backward pass.

    Gradients are counted whole: with accumulation they are there at that moment.
    """
    s, parameters = settings, list(model.parameters())
    total = sum(p.numel() for p in parameters)
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    matrices = sum(p.numel() for p in model.model.layers.parameters() if p.ndim >= 2)
    matrices += model.lm_head.weight.numel()
    shards = s.devices if s.sharded else 1
    positions = s.rows * s.length
    activations = positions * kept_bytes(model, s)
    if s.on_cpu:
        activations += positions * s.length * s.compute_bytes  # the mask, shared by the layers
    logits = _logits(model.config, s)
    if s.optimizer in ("muon", "normuon"):
        # Its step begins when activations are gone: only what it needs beyond them is more.
        activations = max(activations, _muon_transient(model) - logits)
    reserve = CPU_PROCESS if s.on_cpu else CUDA_CONTEXT + FRAGMENTATION * (activations + logits)
    return Memory(
        weights=4 * total / shards,
        compute_copy=_compute_copy(matrices, s),
        gradients=4 * trained / shards,
        optimizer=_optimizer_bytes(model, s) / shards,
        reference=4 * total / shards if s.reference_copy else 0.0,
        activations=activations,
        logits=logits,
        communication=_communication(model, s),
        reserve=reserve,
    )


def _compute_copy(matrices: int, s: MemorySettings) -> float:
    """Autocast keeps a cast copy of each matrix for the backward pass; FSDP gathers the cast weights."""
    if s.sharded:
        return float(s.compute_bytes * matrices) if s.keeps_gathered else 0.0
    return 2.0 * matrices if s.compute_bytes == 2 else 0.0


def _optimizer_bytes(model: CausalLM, s: MemorySettings) -> float:
    """AdamW: two moments of each number; Muon: one, and NorMuon a number more for each row."""
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    muon = s.optimizer in ("muon", "normuon")
    matrices = hidden_matrices(named, s.optimizer) if muon else {}
    rest = sum(p.numel() for n, p in named.items() if n not in matrices)
    numbers = 2 * rest + sum(p.numel() for p in matrices.values())
    if s.optimizer == "normuon":
        numbers += sum(p.numel() // p.shape[-1] for p in matrices.values())
    return 4 * numbers


def _muon_transient(model: CausalLM) -> float:
    """Copies of the largest batch of equal matrices that are orthogonalized at once."""
    by_shape: dict[torch.Size, int] = defaultdict(int)
    for p in hidden_matrices(dict(model.named_parameters()), "muon").values():
        by_shape[p.shape] += p.numel()
    largest = max(p.numel() for p in model.model.layers.parameters())
    return 4 * MUON_COPIES * min(max(by_shape.values()), max(MUON_BATCH, largest))


def _communication(model: CausalLM, s: MemorySettings) -> float:
    if s.devices == 1:
        return 0.0
    if not s.sharded:
        return DDP_BUCKETS
    # FSDP gathers a layer while it computes another, and has their gradients whole on the way out.
    layer = sum(p.numel() for p in model.model.layers[0].parameters())
    ends = model.model.embed_tokens.weight.numel()
    return 2 * s.compute_bytes * max(layer, ends) + 4 * max(layer, ends)


def _logits(config: ModelConfig, s: MemorySettings) -> float:
    """Logits, their gradient, and what the loss makes of them in between."""
    c, count = s.compute_bytes, s.rows * s.length * s.labelled * config.vocab_size
    if not s.on_cpu and not s.reference:
        times_c, times_fp32 = COMPILED_CHUNK_LOGIT if s.compiled else EAGER_CHUNK_LOGIT
        hidden = s.rows * s.length * config.hidden_size * c
        return min(count, LOGIT_CHUNK / c) * (times_c * c + times_fp32 * 4) + hidden
    times_c, times_fp32 = COMPILED_LOGIT if s.compiled else EAGER_LOGIT
    each = times_c * c + times_fp32 * 4
    if not s.compiled and c == 2:
        each += 2  # the gradient on its way back to half precision
    return count * (each + REFERENCE_LOGIT * c * s.reference)


def kept_bytes(model: CausalLM, s: MemorySettings) -> float:
    """Bytes per position that wait for the backward pass, logits left out."""
    config = model.config
    layers = [_layer(config, index, s) for index in range(config.num_hidden_layers)]
    residual = s.compute_bytes
    ends = _norm(config.hidden_size, residual, s) + config.hidden_size * s.compute_bytes
    ends += 8 * 2 + 8  # ids, positions; the log-sum of the loss
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
    feed_forward = _experts(config, s) if moe else H * c + _swiglu(config.intermediate_size, s)
    return 2 * _norm(H, c, s) + attention + feed_forward


def _attention(config: ModelConfig, s: MemorySettings) -> float:
    c, D, heads = s.compute_bytes, config.head_width, config.num_attention_heads
    q, kv = heads * D, config.num_key_value_heads * D
    kept = config.hidden_size * c + 4 * heads  # the input, the log-sum of each head
    if _kernels(s):
        # the merged product of q, k, v; then each of them normalized and turned; the result
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
        # No kernel of a CPU takes two widths: scores are made whole, in fp32, out of autocast's reach.
        wide = c if s.compiled else 4
        return kept + heads * ((2 * keys + value) * wide + 4 * s.length + value * c)
    # The kernel on CUDA wants one width: queries, keys and values padded to it.
    return kept + heads * ((3 * max(keys, value) + value) * c + 4)


def _swiglu(width: int, s: MemorySettings) -> float:
    """Gate, up and their product; eager keeps silu(gate) as well. Its input is counted by the caller."""
    return (3 if s.compiled else 4) * width * s.compute_bytes


def _experts(config: ModelConfig, s: MemorySettings) -> float:
    c, H, k, E = s.compute_bytes, config.hidden_size, config.num_experts_per_tok, config.num_experts
    kept = H * c + 4 * 8 * k + 3 * 4 * E  # the input; orders and weights; scores
    if _kernels(s):
        kept += k * 2 * config.expert_width * c  # gate and up: all else is made again
    else:
        # each choice: sorted input, the expert's inside, result sorted back
        kept += k * (2 * H * c + _swiglu(config.expert_width, s))
        if config.scoring_func == "sigmoid" and c == 2:
            kept += 4 * H  # the router's input in fp32
    if config.n_shared_experts:
        gated = config.scoring_func == "softmax"
        kept += _swiglu(config.n_shared_experts * config.expert_width, s) + gated * H * c
    return kept
