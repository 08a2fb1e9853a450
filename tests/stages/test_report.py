"""report.html of real runs: each curve once, rewards of DPO, samples with their temperature."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mengya.runtime.jsonl import json_line
from mengya.stages import dpo, pretrain
from mengya.stages.dpo import DpoConfig
from mengya.stages.pretrain import PretrainConfig
from mengya.training.telemetry.report import write_report
from tests.helpers.stage_fixtures import MODEL, StageFixtures

SHORT: dict[str, Any] = {
    "max_steps": 3, "loop": {"log_every": 1, "eval_every": 1, "save_every": 3, "sample_every": 3},
    "sample_prompts": ["小满在"], "sample_tokens": 4,
}  # fmt: skip


def curves(page: str) -> list[str]:
    """What the legends name: matplotlib writes the text of a label next to its outlines."""
    found = re.findall(r"<!-- ((?:validation/)?[a-z_]+) -->", page)
    return [name for name in found if name != "step"]


def rows(page: str) -> list[list[str]]:
    found = re.findall(r"<tr>(.*?)</tr>", page.split("<h3>Samples</h3>")[1], re.DOTALL)
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row, re.DOTALL) for row in found]


def test_pretraining_draws_one_loss_and_names_temperatures(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    settings = fixtures.settings("text", tmp_path, model={**MODEL, "vocab_size": 400}, **SHORT)
    assert pretrain.run(PretrainConfig(**settings))
    page = (tmp_path / "report.html").read_text("utf-8")
    assert curves(page)[:2] == ["loss", "validation/loss"] and "nll" not in " ".join(curves(page))
    header, *samples = rows(page)
    assert header == ["step", "temperature", "prompt", "completion"]
    assert [row[1] for row in samples] == ["0 (greedy)", "0.8"]


def test_dpo_draws_rewards_margin_and_accuracy(fixtures: StageFixtures, tmp_path: Path) -> None:
    assert dpo.run(DpoConfig(**fixtures.settings("preference", tmp_path, **SHORT)))
    page = (tmp_path / "report.html").read_text("utf-8")
    for name in ("rewards_chosen", "rewards_rejected", "margin", "accuracy"):
        assert {name, f"validation/{name}"} <= set(curves(page)), name
    assert [row[1] for row in rows(page)[1:]] == ["0 (greedy)"]


@pytest.mark.parametrize(("aux", "drawn"), [(0.0, False), (0.5, True), (1e-4, False)])
def test_nll_is_drawn_where_it_is_another_curve(tmp_path: Path, aux: float, drawn: bool) -> None:
    lines = [
        {"step": step, "loss": 9 / step + aux, "nll": 9 / step,
         "validation/loss": 9 / step + aux, "validation/nll": 9 / step}
        for step in range(1, 9)
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(map(json_line, lines)), encoding="utf-8")
    old = {"step": 8, "prompt": "<b>", "completion": "without a temperature"}
    (tmp_path / "samples.jsonl").write_text(json_line(old), encoding="utf-8")
    write_report(tmp_path / "report.html", "t", [tmp_path])
    page = (tmp_path / "report.html").read_text("utf-8")
    assert (set(curves(page)) >= {"nll", "validation/nll"}) == drawn
    assert rows(page)[1] == ["8", "", "&lt;b&gt;", "without a temperature"]
