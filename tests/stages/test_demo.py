"""A model from text to chat in miniature: every stage of `mengya demo`, and resuming where it stopped."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

from mengya.config import load_config
from mengya.stages import demo
from mengya.stages.chat import ChatConfig
from mengya.stages.serve import ServeConfig

RECIPES = Path(__file__).parents[2] / "recipes/mini"


def small_recipes(folder: Path) -> Path:
    """The demo's own recipes with a few steps and little text."""
    folder.mkdir()
    for path in RECIPES.glob("*.yaml"):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "max_steps" in values:
            values["max_steps"] = 3
        if path.name == "world.yaml":
            values |= {
                "pretrain_characters": 60_000, "conversations": 120, "preferences": 40,
                "heldout_preferences": 20, "validation_documents": 10, "questions_per_subject": 4,
            }  # fmt: skip
        (folder / path.name).write_text(yaml.safe_dump(values, allow_unicode=True), "utf-8")
    return folder


def test_the_demo_runs_measures_and_resumes_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = demo.DemoConfig(
        run_dir=tmp_path / "demo", recipes=small_recipes(tmp_path / "recipes"), questions=2
    )
    demo.run(config)
    results = json.loads((tmp_path / "demo/results.json").read_text(encoding="utf-8"))
    assert [stage["name"] for stage in results["stages"]] == ["pretrain", "sft", "dpo"]
    for stage in results["stages"]:
        assert (Path(stage["checkpoint"]) / "config.json").is_file()
        assert stage["bits_per_char"] > 0
        assert 0 <= stage["closed_book_accuracy"] <= 1
        assert 0 <= stage["preference_accuracy"] <= 1
    said = [
        line.split(": ", 1)[1]
        for line in capsys.readouterr().out.splitlines()
        if " mengya " in line
    ]
    for line, stage in zip(said, (ChatConfig, ServeConfig, ChatConfig, ChatConfig), strict=True):
        _, _, checkpoint, *keys = shlex.split(line)
        config_typed = load_config(stage, None, [f"checkpoint={checkpoint}", *keys])
        assert (config_typed.checkpoint / "config.json").is_file()
        assert not isinstance(config_typed, ServeConfig) or len(config_typed.starters) == 2
    for form in results["small"]:
        proof = json.loads((Path(form["folder"]) / "parity.json").read_text(encoding="utf-8"))
        assert proof["passed"] and not proof["loosened"]
        assert (Path(form["folder"]) / "tokenizer.json").is_file() or "GGUF" in form["name"]
    page = (tmp_path / "demo/report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 6 and "side by side" in page

    weights = tmp_path / "demo/sft/checkpoints/latest/model.safetensors"
    before = weights.stat().st_mtime_ns
    (tmp_path / "demo/results.json").unlink()
    demo.run(config)
    again = json.loads((tmp_path / "demo/results.json").read_text(encoding="utf-8"))
    assert again == results  # nothing was done twice, the seconds are those of the first time
    assert weights.stat().st_mtime_ns == before
