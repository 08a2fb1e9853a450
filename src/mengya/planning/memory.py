"""Memory that one device needs for training, by part, from the shape of the model and the run.

Takes a `CausalLM` on the meta device and a `MemorySettings`; gives bytes. What a layer keeps for the
backward pass is counted in activations.py. Constants that can only be measured stand at the top. Below,
c is the bytes of a number in the dtype of matrix products.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass

import torch

from mengya.kernels.cross_entropy import CHUNK_BYTES
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.fp8_layers import fp8_layers
from mengya.planning.activations import MemorySettings, kept_bytes
from mengya.training.optim.build import hidden_matrices
from mengya.training.optim.muon import BATCH_ELEMENTS
from mengya.training.optim.registry import MATRIX_OPTIMIZERS

# Bytes for one logit, from the product to its gradient. Compiled: the logits and their gradient in c
# bytes each. Eager: logits in c, their fp32 copy's log-softmax and its gradient in 4, the gradient in c.
COMPILED_LOGIT = (2, 0)  # (times c, times 4)
EAGER_LOGIT = (1, 2)
# The loss taken chunk by chunk (kernels/cross_entropy.py, CUDA, not DPO): as above what it makes of each
# logit of a chunk. The gradient of the last hidden states is kept as well.
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
# square and product, the update).
MUON_COPIES = 4


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
    """Memory at the peak, the start of the backward pass.

    All gradients are counted: with accumulation they are there at that moment.
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
    optimizer = MATRIX_OPTIMIZERS.get(s.optimizer)
    if optimizer is not None and optimizer.orthogonalizes:
        # Its step starts when activations are freed: only what it needs beyond them is more.
        activations = max(activations, _muon_transient(model) - logits)
    reserve = CPU_PROCESS if s.on_cpu else CUDA_CONTEXT + FRAGMENTATION * (activations + logits)
    return Memory(
        weights=4 * total / shards,
        compute_copy=_compute_copy(model, matrices, s),
        gradients=4 * trained / shards,
        optimizer=_optimizer_bytes(model, s) / shards,
        reference=4 * total / shards if s.reference_copy else 0.0,
        activations=activations,
        logits=logits,
        communication=_communication(model, s),
        reserve=reserve,
    )


def _compute_copy(model: CausalLM, matrices: int, s: MemorySettings) -> float:
    """Autocast keeps a cast copy of each matrix for the backward pass; FSDP gathers the cast weights.

    Of feed-forward layers in fp8 it is their 8-bit transpose, which is kept in addition to gathered weights.
    """
    in_fp8 = sum(p.numel() for m in fp8_layers(model) for p in m.parameters()) if s.fp8 else 0
    if s.sharded:
        return in_fp8 + (float(s.compute_bytes * matrices) if s.keeps_gathered else 0.0)
    return 2.0 * (matrices - in_fp8) + in_fp8 if s.compute_bytes == 2 else 0.0


def _optimizer_bytes(model: CausalLM, s: MemorySettings) -> float:
    """AdamW keeps two moments of each number; of the matrices it is what their optimizer keeps."""
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    matrices = hidden_matrices(named, s.optimizer)
    numbers = 2 * sum(p.numel() for n, p in named.items() if n not in matrices)
    if matrices:
        planned = MATRIX_OPTIMIZERS[s.optimizer].planned_numbers
        numbers += sum(planned(tuple(p.shape)) for p in matrices.values())
    return 4 * numbers


def _muon_transient(model: CausalLM) -> float:
    """Copies of the largest batch of equal matrices that are orthogonalized at once."""
    by_shape: dict[torch.Size, int] = defaultdict(int)
    for p in hidden_matrices(dict(model.named_parameters()), "muon").values():
        by_shape[p.shape] += p.numel()
    largest = max(p.numel() for p in model.model.layers.parameters())
    return 4 * MUON_COPIES * min(max(by_shape.values()), max(BATCH_ELEMENTS, largest))


def _communication(model: CausalLM, s: MemorySettings) -> float:
    if s.devices == 1:
        return 0.0
    if not s.sharded:
        return DDP_BUCKETS
    # FSDP gathers a layer while it computes another, and holds their full gradients until reduced.
    layer = sum(p.numel() for p in model.model.layers[0].parameters())
    ends = model.model.embed_tokens.weight.numel()
    return 2 * s.compute_bytes * max(layer, ends) + 4 * max(layer, ends)


def _logits(config: ModelConfig, s: MemorySettings) -> float:
    """Logits, their gradient, and what the loss makes of them in between."""
    c, count = s.compute_bytes, s.rows * s.length * s.labelled * config.vocab_size
    if not s.on_cpu and not s.reference:
        times_c, times_fp32 = COMPILED_CHUNK_LOGIT if s.compiled else EAGER_CHUNK_LOGIT
        hidden = s.rows * s.length * config.hidden_size * c
        return min(count, CHUNK_BYTES / c) * (times_c * c + times_fp32 * 4) + hidden
    times_c, times_fp32 = COMPILED_LOGIT if s.compiled else EAGER_LOGIT
    each = times_c * c + times_fp32 * 4
    if not s.compiled and c == 2:
        each += 2  # the gradient on its way back to half precision
    return count * (each + REFERENCE_LOGIT * c * s.reference)
