"""Next-token sums: against cross entropy, at labelled positions only, with the balancing loss."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from mengya.batch import IGNORE_INDEX, Batch
from mengya.losses.dpo import DPO
from mengya.losses.next_token import NextToken
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from tests.helpers.preference_pairs import VOCAB, pack_pairs, random_pairs, tiny_model


def packed() -> Batch:
    pairs = random_pairs(0, 5)
    return pack_pairs([pairs[:3], pairs[3:]], 80)


def mixture(router_aux_loss_coef: float) -> CausalLM:
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
        router_aux_loss_coef=router_aux_loss_coef,
    )  # fmt: skip
    return CausalLM(config).train()


def test_is_the_sum_of_cross_entropy_over_labels() -> None:
    model, batch = tiny_model(0), packed()
    logits = model(**batch.model_inputs()).head_output
    expected = F.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
    )
    loss = NextToken()
    torch.testing.assert_close(loss(model, batch).loss, expected)
    assert loss.items(batch) == int((batch.labels != IGNORE_INDEX).sum())


def test_labelled_positions_alone_give_the_same_loss_and_gradients() -> None:
    model, batch = tiny_model(0), packed()
    twin = copy.deepcopy(model)
    full, part = NextToken()(model, batch).loss, NextToken(labelled_only=True)(twin, batch).loss
    torch.testing.assert_close(full, part)
    full.backward()
    part.backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("labelled_only", [False, True])
def test_z_loss_is_added_and_counted_apart(labelled_only: bool) -> None:
    model, batch = tiny_model(0), packed()
    logits = model(**batch.model_inputs()).head_output[batch.labels != IGNORE_INDEX]
    expected = 0.3 * logits.exp().sum(-1).log().square().sum()
    plain = NextToken()(model, batch)
    result = NextToken(labelled_only=labelled_only, z_loss=0.3)(model, batch)
    torch.testing.assert_close(result.metrics["z_loss"], expected.detach())
    torch.testing.assert_close(result.metrics["nll"], plain.loss.detach())
    torch.testing.assert_close(result.loss, plain.loss + expected)
    assert "z_loss" not in plain.metrics


@pytest.mark.parametrize("labelled_only", [False, True])
def test_no_label_at_all_is_zero_and_not_nan(labelled_only: bool) -> None:
    model, batch = tiny_model(0), packed()
    batch.labels[:] = IGNORE_INDEX
    loss = NextToken(labelled_only=labelled_only)
    assert loss.items(batch) == 0
    result = loss(model, batch).loss
    assert result.item() == 0.0
    result.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("method", ["next_token", "dpo"])
def test_the_balancing_loss_reaches_the_router_in_every_stage(method: str) -> None:
    batch = packed()
    losses = []
    gradients = []
    for coefficient in (0.0, 1.0):
        model = mixture(coefficient)
        reference = copy.deepcopy(model).eval()
        loss = (
            NextToken()
            if method == "next_token"
            else DPO(lambda b, r=reference: r(**b.model_inputs()))
        )
        result = loss(model, batch)
        result.loss.backward()
        losses.append(result)
        router = model.get_parameter("model.layers.0.mlp.gate.weight")
        assert router.grad is not None
        gradients.append(router.grad.clone())
    assert losses[1].metrics["aux_loss"].item() > 0
    torch.testing.assert_close(losses[1].loss, losses[0].loss + losses[1].metrics["aux_loss"])
    assert (gradients[1] - gradients[0]).abs().max() > 1e-4
