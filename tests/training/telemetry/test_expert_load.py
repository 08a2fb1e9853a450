"""The load of experts: counted over a step, moved into the bias once, reported, and an alarm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.training.telemetry.expert_load import ExpertLoad
from mengya.training.telemetry.report import write_report
from tests.helpers.tiny_trainer import VOCAB, make_trainer, poisoned, random_batch

BIAS = "model.layers.1.mlp.gate.e_score_correction_bias"


def mixture(**changes: Any) -> CausalLM:
    values = {
        "vocab_size": VOCAB, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3,
        "num_attention_heads": 2, "num_key_value_heads": 1, "num_experts": 4,
        "num_experts_per_tok": 2, "moe_intermediate_size": 8, "n_shared_experts": 1,
        "scoring_func": "sigmoid", "first_k_dense_replace": 1, "router_bias_update_speed": 0.01,
    }  # fmt: skip
    torch.manual_seed(0)
    return CausalLM(ModelConfig(**{**values, **changes}))


def test_each_applied_step_moves_the_bias_by_the_sign_of_its_load(tmp_path: Path) -> None:
    model = mixture()
    seen: list[torch.Tensor] = []
    move = model.move_router_biases

    def spy(load_LE: torch.Tensor) -> None:
        seen.append(load_LE.clone())
        move(load_LE)

    model.move_router_biases = spy  # type: ignore[method-assign]
    batches = [random_batch(step) for step in range(4)]
    make_trainer(tmp_path, model, [*batches[:2], poisoned(random_batch(9)), *batches[2:]]).fit()
    totals = [load.sum(1).tolist() for load in seen]
    assert totals == [[2 * 2 * 16] * 2] * 2 + [[0, 0]] + [[2 * 2 * 16] * 2] * 2  # one is poisoned
    moves = [0.01 * (load[0].double().mean() - load[0]).sign() for load in seen]
    expected = torch.stack(moves).sum(0)
    torch.testing.assert_close(model.get_buffer(BIAS), expected.float())
    assert model.get_buffer(BIAS).any()


def test_a_frozen_router_keeps_its_bias(tmp_path: Path) -> None:
    model = mixture()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("self_attn" in name)
    make_trainer(tmp_path, model, [random_batch(0)]).fit()
    assert not model.get_buffer(BIAS).any()


@pytest.mark.parametrize("scoring", ["sigmoid", "softmax"])
def test_shares_are_logged_and_drawn(tmp_path: Path, scoring: str) -> None:
    more: dict[str, Any] = {"router_bias_update_speed": 0.001} if scoring == "softmax" else {}
    model = mixture(scoring_func=scoring, qk_norm=False, **more)
    make_trainer(tmp_path, model, [random_batch(step) for step in range(3)]).fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for layer in (1, 2):
            shares = [line[f"experts/layer{layer}/{e}"] for e in range(4)]
            assert sum(shares) == pytest.approx(1, abs=1e-4)
            assert line[f"experts/layer{layer}/max_share"] == max(shares)
            assert 0 < line[f"experts/layer{layer}/entropy"] <= 1
        assert "experts/layer0/0" not in line
    write_report(tmp_path / "report.html", "test", [tmp_path])
    page = (tmp_path / "report.html").read_text()
    assert "load of experts" in page and "evenness of the load" in page


def test_experts_that_starve_are_named_once() -> None:
    model = mixture()
    experts = ExpertLoad(model, lambda vector: vector)
    said: list[str] = []
    values: dict[str, float] = {}
    load = torch.tensor([[400, 300, 300, 0], [250, 250, 250, 250]])
    for _ in range(2):
        model.expert_load.copy_(load)
        experts.after_step(applied=True)
        values = experts.report(said.append)
    assert values["experts/layer1/min_share"] == 0 and values["experts/layer2/entropy"] == 1
    assert len(said) == 1 and "layer 1: 3;" in said[0]
    model.expert_load.fill_(5)
    experts.after_step(applied=True)
    experts.report(said.append)
    assert said[1:] == ["all experts receive tokens again"]
    assert experts.report(said.append) == {}


def test_a_dense_model_has_nothing_to_report(tmp_path: Path) -> None:
    model = mixture(
        num_experts=0, scoring_func="softmax", n_shared_experts=0, first_k_dense_replace=0,
        moe_intermediate_size=None, router_bias_update_speed=0.001,
    )  # fmt: skip
    make_trainer(tmp_path, model, [random_batch(0)]).fit()
    assert "experts" not in (tmp_path / "metrics.jsonl").read_text()
