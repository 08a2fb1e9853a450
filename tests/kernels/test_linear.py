"""Weights that lie end to end are multiplied at once, and stay the model's own parameters."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from mengya.kernels.linear import lay_end_to_end, merged_product
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import load_causal_lm, save_hf_folder


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
    lay_end_to_end(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(one is parameters[name] for name, one in model.named_parameters())
    layers = projections(model)
    assert layers[1].weight.untyped_storage().data_ptr() == layers[0].weight.data_ptr()
    assert product_equals_the_layers(layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(ids).logits.square().mean().backward()
    optimizer.step()
    assert not torch.equal(layers[1].weight, before["model.layers.0.self_attn.k_proj.weight"])
    assert product_equals_the_layers(layers)


def test_weights_that_moved_apart_again_are_still_multiplied_rightly() -> None:
    model = small_model()
    lay_end_to_end(model)
    layers = projections(model)
    for layer in (layers[1], layers[0]):
        layer.weight.data = 2 * layer.weight.data
        assert product_equals_the_layers(layers)
    assert product_equals_the_layers(projections(model.double().float()))


def test_a_model_laid_end_to_end_is_saved_and_loaded(tmp_path: Path) -> None:
    model = small_model()
    lay_end_to_end(model)
    save_hf_folder(model, model.config, tmp_path, pad_token_id=0)
    loaded = load_causal_lm(tmp_path)
    for name, one in model.state_dict().items():
        assert torch.equal(one, loaded.state_dict()[name])
