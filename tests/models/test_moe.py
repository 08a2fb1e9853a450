"""The mixture of experts: its balancing loss, its routing, its two ways to multiply."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from mengya.kernels.experts.reference import grouped_product, looped_product
from mengya.models.causal_lm import CausalLM
from mengya.models.moe import MoE
from mengya.models.router import SigmoidRouter, balance_loss
from tests.helpers.oracle import assert_near
from tests.helpers.random_model import random_model, tiny_config


def mixtures(model: CausalLM) -> list[MoE]:
    return [module for module in model.modules() if isinstance(module, MoE)]


def test_balance_loss_of_one_row_is_transformers() -> None:
    logits = torch.randn(1, 30, 6) * 2
    probabilities = logits.softmax(-1)
    chosen = probabilities.topk(2).indices
    for mask in (None, torch.arange(30)[None] < 19):
        ours = balance_loss(probabilities, chosen, mask)
        flat = None if mask is None else mask.long()
        theirs = load_balancing_loss_func((logits[0],), 6, 2, flat)
        torch.testing.assert_close(ours, torch.as_tensor(theirs)[None])


def test_balance_loss_is_k_when_balanced_and_grows_when_not() -> None:
    even = torch.full((1, 4, 4), 0.25)
    chosen = torch.tensor([[[0, 1], [2, 3], [0, 1], [2, 3]]])
    assert balance_loss(even, chosen, None).item() == pytest.approx(2)
    lopsided = torch.tensor([0.9, 0.1, 0, 0]).expand(1, 4, 4)
    assert balance_loss(lopsided, torch.tensor([0, 1]).expand(1, 4, 2), None).item() == 4


def test_a_rows_loss_does_not_depend_on_its_neighbours_or_padding() -> None:
    model = random_model(tiny_config("Qwen3Moe")).train()
    ids = torch.randint(101, (3, 16))
    documents = torch.zeros_like(ids)
    documents[1, 9:] = -1
    together = model(ids, document_ids=documents).aux_loss_B
    alone = [model(ids[b : b + 1], document_ids=documents[b : b + 1]).aux_loss_B for b in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))
    shorter = model(ids[1:2, :9], document_ids=documents[1:2, :9]).aux_loss_B
    torch.testing.assert_close(together[1:2], shorter)


def test_aux_loss_is_scaled_and_reaches_every_router() -> None:
    model = random_model(tiny_config("Qwen3Moe", router_aux_loss_coef=0.5)).train()
    ids = torch.randint(101, (2, 16))
    aux_B = model(ids).aux_loss_B
    assert (aux_B > 0.5 * 1.5).all()  # about k = 2, times the coefficient
    aux_B.sum().backward()
    assert len(mixtures(model)) == 2
    for layer in mixtures(model):
        gradient = layer.gate.weight.grad
        assert gradient is not None and gradient.abs().max() > 1e-6
    assert model.eval()(ids).aux_loss_B is None


def test_minimizing_the_aux_loss_balances_the_load() -> None:
    torch.manual_seed(0)
    layer = MoE(tiny_config("Qwen3Moe")).train()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.3)
    x = torch.randn(1, 256, 48) + 1.0
    optimizer = torch.optim.SGD(layer.gate.parameters(), lr=0.1)

    def largest_share() -> float:
        chosen = layer.gate(x[0])[2]
        return (torch.bincount(chosen.flatten(), minlength=5).max() / chosen.numel()).item()

    before = largest_share()
    for _ in range(100):
        optimizer.zero_grad()
        routing = layer(x, None)[1]
        assert routing is not None and routing.aux_B is not None
        routing.aux_B.sum().backward()
        optimizer.step()
    assert before > 0.3 and largest_share() < 0.25


def test_grouped_and_looped_products_are_equal() -> None:
    ends = torch.tensor([3, 3, 10, 12], dtype=torch.int32)  # the second expert gets nothing
    x, weight = torch.randn(12, 16), torch.randn(4, 8, 16)
    results = []
    for multiply in (grouped_product, looped_product):
        a, w = x.clone().requires_grad_(), weight.clone().requires_grad_()
        out = multiply(a, w, ends)
        (out * torch.arange(8.0)).sum().backward()
        assert a.grad is not None and w.grad is not None
        results.append((out, a.grad, w.grad))
    for grouped, looped in zip(*results, strict=True):
        assert_near(grouped, looped)


@torch.no_grad()
def test_every_token_gets_the_weighted_sum_of_its_experts() -> None:
    layer = mixtures(random_model(tiny_config("Qwen3Moe")))[0]
    x = torch.randn(1, 11, 48)
    out, _ = layer(x, None)
    _, weights, chosen = layer.gate(x[0])
    torch.testing.assert_close(weights.sum(-1), torch.ones(11))
    for n in range(11):
        expected = torch.zeros(48)
        for weight, e in zip(weights[n], chosen[n], strict=True):
            gate, up = F.linear(x[0, n], layer.experts.gate_up_proj[e]).chunk(2)
            expected += weight * F.linear(F.silu(gate) * up, layer.experts.down_proj[e])
        assert_near(out[0, n], expected)


def sigmoid_router(**changes: object) -> SigmoidRouter:
    values = {"num_experts": 8, "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2, **changes}
    torch.manual_seed(1)
    router = SigmoidRouter(tiny_config("Glm4Moe", **values))
    torch.nn.init.normal_(router.weight, std=0.3)
    return router


@torch.no_grad()
def test_the_bias_changes_the_choice_and_never_the_weights() -> None:
    router = sigmoid_router(n_group=1, topk_group=1, norm_topk_prob=False)
    x = torch.randn(50, 48)
    before = router(x)
    router.e_score_correction_bias[3] = 10.0
    after = router(x)
    assert (after.experts_Nk == 3).any(-1).all() and not (before.experts_Nk == 3).any(-1).all()
    scores = torch.sigmoid(x @ router.weight.T)
    torch.testing.assert_close(after.weights_Nk, scores.gather(1, after.experts_Nk) * 1.7)


@torch.no_grad()
def test_a_token_chooses_within_its_best_groups() -> None:
    router = sigmoid_router(num_experts_per_tok=4)  # all of the two groups that it keeps
    x = torch.randn(50, 48)
    scores = torch.sigmoid(x @ router.weight.T) + router.e_score_correction_bias
    quality = scores.view(50, 4, 2).sum(-1)
    for chosen, best in zip(router(x).experts_Nk, quality.topk(2).indices, strict=True):
        expected = {2 * g + i for g in best.tolist() for i in range(2)}
        assert set(chosen.tolist()) == expected


def test_moving_the_bias_by_load_evens_it() -> None:
    router = sigmoid_router(router_bias_update_speed=0.02, n_group=1, topk_group=1)
    x = torch.randn(400, 48) + 0.7  # tokens that are alike crowd into few experts

    def load() -> torch.Tensor:
        return torch.bincount(router(x).experts_Nk.flatten(), minlength=8)

    before = load()
    for _ in range(60):
        router.move_bias(load())
    after = load()
    assert before.max() > 2 * 100 and before.min() < 0.2 * 100  # 100 each would be even
    assert after.max() < 1.4 * 100 and after.min() > 0.6 * 100
    assert router.e_score_correction_bias.grad_fn is None


def test_the_bias_stays_fp32_whatever_the_model_becomes() -> None:
    model = random_model(tiny_config("Glm4Moe"))
    name = "model.layers.1.mlp.gate.e_score_correction_bias"
    before = model.get_buffer(name).clone()
    half = model.to(torch.bfloat16)
    assert half.lm_head.weight.dtype == torch.bfloat16
    assert torch.equal(half.get_buffer(name), before)


def test_load_counts_real_tokens_once_and_only_in_training() -> None:
    model = random_model(tiny_config("Glm4Moe", num_hidden_layers=3))
    ids = torch.randint(101, (2, 16))
    documents = torch.zeros_like(ids)
    documents[1, 10:] = -1
    model(ids, document_ids=documents)
    assert model.take_expert_load().sum() == 0
    model.train()
    loads = []
    for model.gradient_checkpointing in (False, True):
        for _ in range(2):  # two micro-batches
            model(ids, document_ids=documents).head_output.sum().backward()
        loads.append(model.take_expert_load())
    assert loads[0].shape == (2, 6)  # the first layer is dense
    assert loads[0].sum(1).tolist() == [2 * 26 * 3] * 2
    assert torch.equal(loads[0], loads[1])
    assert model.take_expert_load().sum() == 0
    assert "expert_load" not in model.state_dict()


def test_the_sequence_wise_loss_of_a_sigmoid_router_is_its_coefficient_when_even() -> None:
    """DeepSeek-V3's alpha * sum of f_i P_i, with f_i = E / (k T) * choices: 1 when balanced."""
    layer = MoE(tiny_config("Glm4Moe", n_group=1, topk_group=1, router_aux_loss_coef=0.1)).train()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.1)
        layer.gate.weight.zero_()
    x = torch.randn(1, 6, 48)
    scores = torch.full((1, 6, 6), 1 / 6)
    chosen = torch.tensor([[[0, 1, 2], [3, 4, 5]] * 3])
    torch.testing.assert_close(balance_loss(scores, chosen, None) / 3, torch.ones(1))
    routing = layer(x, None)[1]
    assert routing is not None and routing.aux_B is not None
    torch.testing.assert_close(routing.aux_B, torch.ones(1))  # even scores: 1 whatever the choice
