"""FLOPs equal what torch counts in a real forward and backward pass, and the formula by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mengya.losses.token_nll import token_nll
from mengya.models.adapters.lora import LoraConfig, add_lora
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.planning.flops import forward_flops, muon_flops, recomputed_flops, training_flops
from tests.helpers.random_model import FAMILIES, tiny_config

ROWS, SIZE = 2, 48


def one_document() -> dict[str, Tensor]:
    return {
        "input_ids": torch.randint(0, 101, (ROWS, SIZE)),
        "document_ids": torch.zeros(ROWS, SIZE, dtype=torch.int64),
        "position_ids": torch.arange(SIZE).expand(ROWS, SIZE),
    }


def counted(model: CausalLM) -> tuple[int, int]:
    """(forward, forward and backward) by torch; masked attention is counted as the full square."""
    inputs = one_document()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        logits = model(**inputs).head_output
        forward = counter.get_total_flops()
        token_nll(logits, inputs["input_ids"]).sum().backward()
    return forward, counter.get_total_flops()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fully_trained_model_costs_exactly_what_torch_counts(family: str) -> None:
    model = CausalLM(tiny_config(family, num_hidden_layers=3)).train()
    forward, both = counted(model)
    assert ROWS * SIZE * forward_flops(model, SIZE).total == forward
    assert ROWS * SIZE * training_flops(model, SIZE).total == both


@pytest.mark.parametrize("family", ["Qwen3", "DeepseekV3 dense"])
def test_lora_leaves_out_gradients_that_nobody_needs(family: str) -> None:
    model = add_lora(CausalLM(tiny_config(family)), LoraConfig(rank=4)).train()
    forward, both = counted(model)
    assert ROWS * SIZE * forward_flops(model, SIZE).total == forward
    assert ROWS * SIZE * training_flops(model, SIZE).total == both


@pytest.mark.parametrize("tied", [True, False])
def test_trained_rows_need_gradients_down_to_the_embedding_and_none_of_the_matrix(
    tied: bool,
) -> None:
    config = tiny_config("Qwen3", vocab_size=1000, tie_word_embeddings=tied)
    model = add_lora(CausalLM(config), LoraConfig(rank=4), [7, 9]).train()
    _, both = counted(model)
    assert ROWS * SIZE * training_flops(model, SIZE).total == pytest.approx(both, rel=0.003)


def test_lora_on_experts_is_near() -> None:
    model = add_lora(CausalLM(tiny_config("Qwen3Moe")), LoraConfig(rank=2)).train()
    _, both = counted(model)
    # The product of the adapters is made once a step, whatever the tokens; here those are few.
    assert ROWS * SIZE * training_flops(model, SIZE).total == pytest.approx(both, rel=0.05)


def test_the_formula_by_hand() -> None:
    """zh-26m: 6 for each weight but the embedding, twelve for each number of the scores."""
    model = CausalLM(ModelConfig(), device="meta")
    assert (model.config.hidden_size, model.config.intermediate_size) == (512, 1408)
    layer = 512 * 512 * 2 + 512 * 128 * 2 + 3 * 512 * 1408
    flops = training_flops(model, visible=300)
    assert flops.layers == 6 * 8 * layer
    assert flops.output == 6 * 6400 * 512
    assert flops.attention == 12 * 8 * 8 * 64 * 300
    assert recomputed_flops(model, 300) == (flops.layers + flops.attention) / 3


def test_experts_count_by_what_a_token_meets() -> None:
    shape: dict[str, Any] = {"num_experts": 8, "moe_intermediate_size": 128}
    one, two = (
        forward_flops(
            CausalLM(ModelConfig(**shape, num_experts_per_tok=k), device="meta"), 1
        ).layers
        for k in (1, 2)
    )
    assert two - one == 2 * 8 * 3 * 512 * 128


def test_a_reference_adds_its_forward_pass_and_unlabelled_positions_no_logits() -> None:
    model = CausalLM(ModelConfig(), device="meta")
    plain, forward = training_flops(model, 100), forward_flops(model, 100)
    assert training_flops(model, 100, reference=True).total == plain.total + forward.total
    assert training_flops(model, 100, labelled=0.25).output == plain.output / 4


def test_muon_counts_its_products() -> None:
    matrices = {
        "layers.0.q_proj.weight": torch.empty(8, 32, device="meta"),
        "layers.0.mlp.experts.gate_up_proj": torch.empty(3, 20, 40, device="meta"),
    }
    single, pair = 4 * 8**2 * 32 + 2 * 8**3, 4 * 10**2 * 40 + 2 * 10**3
    assert muon_flops(matrices, steps=5) == 5 * (single + 6 * pair)
