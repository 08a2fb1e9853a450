"""Merged, packed and split linear layers compute what plain ones do, over the model's own parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mengya.kernels.linear import (
    PackedLinear,
    can_pack,
    fuse_storage,
    merged_product,
    pack_linears,
    split_linear,
)
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import load_causal_lm, save_hf_folder
from tests.helpers.oracle import assert_near


def small_model() -> CausalLM:
    config = ModelConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    return CausalLM(config)


def projections(model: CausalLM) -> list[nn.Linear]:
    found = model.model.layers[0].self_attn
    return [getattr(found, name) for name in ("q_proj", "k_proj", "v_proj")]


@torch.no_grad()
def product_equals_the_layers(layers: list[nn.Linear]) -> bool:
    x = torch.randn(3, layers[0].in_features)
    apart = torch.cat([layer(x) for layer in layers], -1)
    return torch.allclose(merged_product(x, *layers), apart, atol=1e-6)


def test_the_model_is_the_same_and_its_products_follow_its_weights() -> None:
    model, ids = small_model(), torch.arange(10)[None]
    before: dict[str, Tensor] = {k: v.clone() for k, v in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    fuse_storage(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(one is parameters[name] for name, one in model.named_parameters())
    layers = projections(model)
    assert layers[1].weight.untyped_storage().data_ptr() == layers[0].weight.data_ptr()
    assert product_equals_the_layers(layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(ids).head_output.square().mean().backward()
    optimizer.step()
    assert not torch.equal(layers[1].weight, before["model.layers.0.self_attn.k_proj.weight"])
    assert product_equals_the_layers(layers)


def test_without_fused_storage_products_are_right() -> None:
    model = small_model()
    fuse_storage(model)
    layers = projections(model)
    for layer in (layers[1], layers[0]):
        layer.weight.data = 2 * layer.weight.data
        assert product_equals_the_layers(layers)
    assert product_equals_the_layers(projections(model.double().float()))


def test_a_model_of_fused_storage_is_saved_and_loaded(tmp_path: Path) -> None:
    model = small_model()
    fuse_storage(model)
    save_hf_folder(model, model.config, tmp_path, pad_token_id=0)
    loaded = load_causal_lm(tmp_path)
    for name, one in model.state_dict().items():
        assert torch.equal(one, loaded.state_dict()[name])


@torch.inference_mode()
def test_a_packed_model_computes_the_same(model: CausalLM, input_ids: torch.Tensor) -> None:
    if not can_pack(model):
        pytest.skip("this PyTorch has no oneDNN")
    packed = pack_linears(model)
    for rows in (1, 3):
        expected = model(input_ids[:rows]).head_output
        assert_near(packed(input_ids[:rows]).head_output, expected, 3e-5)
    assert type(model.lm_head) is torch.nn.Linear
    assert isinstance(packed.lm_head, PackedLinear)
    ours, theirs = dict(model.named_parameters()), dict(packed.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(theirs[name] is parameter for name, parameter in ours.items())


def test_packing_is_for_fp32_on_a_cpu(model: CausalLM) -> None:
    assert not can_pack(model.to(torch.bfloat16))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_split_linear_is_the_fp32_linear(device: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 64, device=device).bfloat16()
    weight = torch.randn(5, 64, device=device)
    dout = torch.randn(300, 5, device=device)

    def run(compute: object, x: Tensor) -> list[Tensor]:
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        out = compute(*leaves)  # type: ignore[operator]
        out.backward(dout)
        return [out, *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    exact = run(F.linear, x.float())
    # Compiling for a CPU takes a minute.
    compiled = [torch.compile(split_linear, fullgraph=True)] if device == "cuda" else []
    for compute in (split_linear, *compiled):
        split = run(compute, x)
        assert split[1].dtype == torch.bfloat16  # rounded once: half of the last of 8 bits
        for ours, expected, tolerance in zip(split, exact, (1e-6, 4e-3, 1e-4), strict=True):
            assert (ours.float() - expected).norm() / expected.norm() < tolerance
