"""Plans of tiny steps, students' cards, next to strangers' files; the warnings of a plan reach a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from mengya.errors import UserError
from mengya.planning.inputs import Hardware
from mengya.stages import dpo, pretrain
from mengya.stages.dpo import DpoConfig
from mengya.stages.plan import make_plan
from mengya.stages.pretrain import PretrainConfig
from tests.helpers.stage_fixtures import MODEL, StageFixtures

TINY = [
    "run_dir=x", "tokenizer=t", "data.train=none", "max_steps=10", "data.sequence_length=64",
    "model={vocab_size: 400, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2,"
    " num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 64}",
]  # fmt: skip


def test_a_tiny_step_takes_as_long_as_its_launches() -> None:
    plan = make_plan(None, TINY, Hardware("h200"), "pretrain")
    assert plan.seconds_per_step is not None and plan.seconds_per_step >= 0.003
    assert plan.tokens_per_second is not None and plan.tokens_per_second < 1e6
    assert plan.expected is not None and plan.expected.estimate and plan.expected.mfu < 0.01
    more = [*TINY, "micro_batch_size=1", "global_batch_size=64"]
    accumulated = make_plan(None, more, Hardware("h200"), "pretrain")
    assert accumulated.seconds_per_step is not None
    assert accumulated.seconds_per_step > 4 * plan.seconds_per_step


def test_large_steps_are_as_measured() -> None:
    large = ["micro_batch_size=64", "data.sequence_length=1024", "model.hidden_size=512"]
    large += ["model.intermediate_size=1408", "model.max_position_embeddings=1024"]
    plan = make_plan(
        None, [*TINY, *large, "model.num_hidden_layers=8"], Hardware("h100"), "pretrain"
    )
    assert plan.expected is not None and plan.expected.mfu > 0.2


@pytest.mark.parametrize(
    "card", ["rtx4060", "RTX 3060 Laptop", "rtx4070", "rtx2080-ti", "rtx4060-laptop", "m1", "m2"]
)
def test_cards_of_students_are_known(card: str) -> None:
    plan = make_plan(None, TINY, Hardware(card), "pretrain")
    assert plan.seconds and plan.device.memory > 2**30


def test_a_device_that_cannot_train_here_is_named_as_such() -> None:
    with pytest.raises(UserError, match="torch_npu, which mengya does not use"):
        make_plan(None, TINY, Hardware("Ascend 910B"), "pretrain")


def test_files_of_strangers_next_to_a_recipe_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("{{ helm }}: [")
    (tmp_path / "b.yaml").write_text("- a list\n")
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe")
    text = f"{{run_dir: {tmp_path}/run, tokenizer: t, max_steps: 1, data: {{train: x}}, "
    (tmp_path / "pretrain.yaml").write_text(text + "model: {vocab_size: 400}}\n")
    (tmp_path / "sft.yaml").write_text(
        f"{{run_dir: y, init_from: {tmp_path}/run, max_steps: 1, data: {{train: x}}}}\n"
    )
    plan = make_plan(tmp_path / "sft.yaml", hardware=Hardware("h200"))
    assert plan.model.config.vocab_size == 400


def test_warnings_of_a_plan_reach_the_run(
    fixtures: StageFixtures, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = fixtures.settings("preference", tmp_path / "dpo", max_steps=1)
    dpo.run(DpoConfig(**{**settings, "optimizer": {"lr": 3e-3}}))
    assert (
        "warning: optimizer.lr 0.003 is outside of 1e-07 to 0.0005, usual for dpo"
        in capfd.readouterr().err
    )
    assert "(learning_rate)" in (tmp_path / "dpo/log.txt").read_text(encoding="utf-8")
    model = {**MODEL, "vocab_size": 400, "max_position_embeddings": 64}
    settings = fixtures.settings("text", tmp_path / "text", model=model, max_steps=1)
    pretrain.run(PretrainConfig(**settings))
    assert "sequence_length 128 is above the 64 positions" in capfd.readouterr().err
