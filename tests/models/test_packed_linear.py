"""Packed layers compute what plain ones do, share their parameters and leave the model as it was."""

from __future__ import annotations

import pytest
import torch

from mengya.models.causal_lm import CausalLM
from mengya.models.config import ModelConfig
from mengya.models.packed_linear import PackedLinear, pack_linears, packing_runs

from .conftest import assert_near


@torch.inference_mode()
def test_a_packed_model_computes_the_same(model: CausalLM, input_ids: torch.Tensor) -> None:
    if not packing_runs(model):
        pytest.skip("this PyTorch has no oneDNN")
    packed = pack_linears(model)
    for rows in (1, 3):
        expected = model(input_ids[:rows]).logits
        assert_near(packed(input_ids[:rows]).logits, expected, 3e-5)
    assert type(model.lm_head) is torch.nn.Linear
    assert isinstance(packed.lm_head, PackedLinear)
    ours, theirs = dict(model.named_parameters()), dict(packed.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(theirs[name] is parameter for name, parameter in ours.items())


@torch.inference_mode()
def test_layers_of_one_input_are_packed_together(input_ids: torch.Tensor) -> None:
    """With biases and without norms of heads, as Qwen2 has it; each layer may still be asked alone."""
    config = ModelConfig(
        vocab_size=int(input_ids.max()) + 1, hidden_size=32, intermediate_size=48, qk_norm=False,
        attention_bias=True, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = CausalLM(config)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear) and layer.bias is not None:
            torch.nn.init.normal_(layer.bias)
    if not packing_runs(model):
        pytest.skip("this PyTorch has no oneDNN")
    packed = pack_linears(model)
    assert_near(packed(input_ids).logits, model(input_ids).logits, 3e-5)
    ours, theirs = (m.get_submodule("model.layers.0.self_attn.q_proj") for m in (packed, model))
    assert isinstance(ours, PackedLinear) and ours.joined == 3
    x = torch.randn(5, 32)
    assert_near(ours(x), theirs(x), 1e-5)


def test_packing_is_for_fp32_on_a_cpu(model: CausalLM) -> None:
    assert not packing_runs(model.to(torch.bfloat16))
