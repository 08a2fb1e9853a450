"""The activations that activations.py counts are those that autograd really keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mengya.models.adapters.lora import LoraConfig, add_lora
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.fp8_layers import fp8_layers
from mengya.planning.activations import MemorySettings, kept_bytes
from mengya.planning.memory import Memory, training_memory
from mengya.training.optim.build import build_optimizers, optimizer_state
from mengya.training.optim.config import OptimizerConfig
from tests.helpers.random_model import FAMILIES

ROWS, SIZE = 2, 64
SETTINGS = MemorySettings(rows=64, length=1024, compute_bytes=2, compiled=True)


def small(family: str, layers: int) -> ModelConfig:
    base: dict[str, Any] = {
        "vocab_size": 32, "hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128,
    }  # fmt: skip
    return ModelConfig(**{**base, **FAMILIES[family], "num_hidden_layers": layers})


def really_kept(model: CausalLM, autocast: bool) -> int:
    """Bytes of all tensors saved for the backward pass, each memory once, parameters left out."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # freed memory would be given out again
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        model(
            torch.randint(0, 32, (ROWS, SIZE)),
            position_ids=torch.arange(SIZE).expand(ROWS, SIZE),
            document_ids=torch.zeros(ROWS, SIZE, dtype=torch.int64),
        )
    return sum(sizes.values())


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_keeps_what_is_counted(family: str, autocast: bool) -> None:
    settings = MemorySettings(
        ROWS, SIZE, compute_bytes=2 if autocast else 4, compiled=False, on_cpu=True
    )
    real, counted = [], []
    for layers in (2, 4):  # the difference is two layers and nothing else
        model = CausalLM(small(family, layers)).train()
        real.append(really_kept(model, autocast))
        copies = training_memory(model, settings).compute_copy
        counted.append(ROWS * SIZE * kept_bytes(model, settings) + copies)
    assert counted[1] - counted[0] == pytest.approx(real[1] - real[0], rel=0.03)


@pytest.mark.parametrize("family", ["Qwen3", "Qwen2Moe"])
def test_layers_in_fp8_keep_what_is_counted(family: str) -> None:
    settings = MemorySettings(ROWS, SIZE, compute_bytes=2, compiled=False, on_cpu=True, fp8=True)
    real, counted = [], []
    for layers in (2, 4):
        model = CausalLM(small(family, layers)).train()
        for layer in fp8_layers(model):
            layer.fp8 = True
        real.append(really_kept(model, autocast=True))
        copies = training_memory(model, settings).compute_copy
        counted.append(ROWS * SIZE * kept_bytes(model, settings) + copies)
    assert counted[1] - counted[0] == pytest.approx(real[1] - real[0], rel=0.03)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Mismatch dtype")
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("family", ["Qwen3", "Llama", "DeepseekV3 dense"])
def test_the_compilers_partition_keeps_what_is_counted(family: str, autocast: bool) -> None:
    """The partition that inductor takes too; backend aot_eager_decomp_partition writes no code."""
    settings = MemorySettings(
        ROWS, SIZE, compute_bytes=2 if autocast else 4, compiled=True, on_cpu=True
    )
    real, counted = [], []
    for layers in (2, 4):
        torch.compiler.reset()
        model = CausalLM(small(family, layers)).train()
        copies = training_memory(model, settings).compute_copy
        counted.append(ROWS * SIZE * kept_bytes(model, settings) + copies)
        model.compile(backend="aot_eager_decomp_partition")
        real.append(really_kept(model, autocast))
    assert counted[1] - counted[0] == pytest.approx(real[1] - real[0], rel=0.03)


@pytest.mark.parametrize("name", ["adamw", "muon", "normuon"])
def test_optimizer_state_has_the_counted_size(name: Any) -> None:
    model = CausalLM(small("Qwen3Moe", 2))
    optimizers = build_optimizers(model, OptimizerConfig(name=name))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for optimizer in optimizers:
        optimizer.step()
    state = optimizer_state(optimizers, model)
    real = sum(t.nbytes for key, t in state.items() if not key.endswith(".step"))
    assert training_memory(model, replace(SETTINGS, optimizer=name)).optimizer == real


def memory_of(**changes: Any) -> Memory:
    return training_memory(CausalLM(ModelConfig(), device="meta"), replace(SETTINGS, **changes))


def test_what_each_setting_saves() -> None:
    plain = memory_of()
    assert memory_of(rows=32).activations == plain.activations / 2
    assert memory_of(gradient_checkpointing=True).activations < plain.activations / 3
    sharded = memory_of(devices=4, sharded=True)
    assert sharded.optimizer == plain.optimizer / 4 and sharded.weights == plain.weights / 4
    assert sharded.communication > 0 == plain.communication
    assert memory_of(devices=4).optimizer == plain.optimizer
    pairs = memory_of(reference=True)
    assert memory_of(reference=True, labelled=0.5).logits == pairs.logits / 2
    assert memory_of(rows=256).logits < 1.1 * memory_of(rows=128).logits  # chunk by chunk


def test_the_parts_of_the_default_model_by_hand() -> None:
    """25,830,912 parameters, of which 17 norms of 512 and 2 of 64 in each of 8 layers are no matrices."""
    total, matrices = 25_830_912, 25_830_912 - 17 * 512 - 8 * 2 * 64
    memory = memory_of(rows=2, length=1024)
    assert (memory.weights, memory.gradients, memory.optimizer) == (4 * total, 4 * total, 8 * total)
    assert memory.compute_copy == 2 * matrices
    # In one chunk: logits and their gradient in 2 bytes; the gradient of the hidden states.
    assert memory.logits == 2 * 1024 * (6400 * 2 * 2 + 512 * 2)
    assert (memory.reference, memory.communication) == (0, 0)
    tensors = 16 * total + 2 * matrices + memory.activations + memory.logits
    assert memory.allocated == pytest.approx(tensors, rel=1e-9)
    # The CUDA context, and what the allocator loses of what is not there from start to end.
    lost = 0.6e9 + 0.05 * (memory.activations + memory.logits)
    assert memory.needed == pytest.approx(tensors + lost, rel=1e-9)


def test_adapters_have_no_gradients_and_state_of_frozen_weights() -> None:
    model = add_lora(CausalLM(ModelConfig(), device="meta"), LoraConfig(rank=8))
    adapters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    memory = training_memory(model, SETTINGS)
    assert (memory.gradients, memory.optimizer) == (4 * adapters, 8 * adapters)
    assert memory.weights > 4 * 25_830_912


def test_trained_rows_count_by_themselves() -> None:
    plain = add_lora(CausalLM(ModelConfig(), device="meta"), LoraConfig(rank=8))
    model = add_lora(CausalLM(ModelConfig(), device="meta"), LoraConfig(rank=8), range(6300, 6400))
    without, memory = (training_memory(each, SETTINGS) for each in (plain, model))
    rows = 100 * 512
    assert memory.gradients - without.gradients == 4 * rows  # not 4 * 6400 * 512
    assert memory.optimizer - without.optimizer == 8 * rows
    assert 0 < memory.activations - without.activations < 10 * SETTINGS.rows * SETTINGS.length
