"""Stages of every kind in the card: LoRA, RL, quantized, one that nobody knows; replay; judgements."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from mengya.cli import read_arguments
from mengya.errors import UserError
from mengya.evaluation.card.content import card_values
from mengya.evaluation.card.life import find_life
from mengya.evaluation.card.stage import read_stage
from mengya.measured.evaluation import subject_sha256
from mengya.measured.measurement import Measurement
from mengya.stages.report import ReportConfig, run
from tests.evaluation.card.life import add_loops, add_run, add_text, write_lines

BITS = [20.0 + i % 7 for i in range(40)]


def card(*paths: Path) -> dict[str, Any]:
    values = card_values([read_stage(place, []) for place in find_life(paths)], "mengya report")
    return json.loads(json.dumps(values))


def report(tmp_path: Path, *arguments: str) -> tuple[dict[str, Any], str, str]:
    """card.json, card.md and card.html of the stages in tmp_path/life."""
    typed = [str(tmp_path / "life"), "measure=false", "language=en", *arguments]
    run(read_arguments(ReportConfig, "stages", typed))
    folder = tmp_path / "life/card"
    texts = [(folder / f"card.{kind}").read_text("utf-8") for kind in ("json", "md", "html")]
    return json.loads(texts[0]), texts[1], texts[2]


def add_adapter(base: Path, run: Path) -> Path:
    """A LoRA run whose checkpoint is an adapter of `base`."""
    folder = add_run(base, run, "sft", base)
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    settings = {"base_model_name_or_path": str(base), "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_an_adapter_comes_from_its_base(checkpoint: Path, tmp_path: Path) -> None:
    base = add_run(checkpoint, tmp_path / "life/base", "pretrain")
    adapter = add_adapter(base, tmp_path / "life/chat")
    add_text(base, BITS)
    add_text(adapter, [each + 5 for each in BITS])
    values, markdown, _ = report(tmp_path)
    stage = values["stages"][1]
    assert (stage["name"], stage["kind"], stage["before"], stage["before_known"]) == (
        "chat", "lora", 0, True,
    )  # fmt: skip
    assert not stage["is_stale"] and stage["cost"]["parameters"]
    assert "LoRA (chat) cost 0.500 bits per character" in markdown
    (base / "model.safetensors").write_bytes(b"other weights")  # then these figures are of nothing
    assert card(tmp_path / "life")["stages"][1]["is_stale"]


@pytest.mark.parametrize(
    ("verb", "shown"), [("grpo", "RL (GRPO)"), ("rl", "RL"), ("distil", "distil"), ("<b>", "<b>")]
)
def test_a_kind_without_a_word_shows_its_name(
    checkpoint: Path, tmp_path: Path, verb: str, shown: str
) -> None:
    base = add_run(checkpoint, tmp_path / "life/base", "pretrain")
    tuned = add_run(checkpoint, tmp_path / "life/tuned", verb, base)
    add_text(base, BITS)
    add_text(tuned, [each + 5 for each in BITS])
    values, markdown, page = report(tmp_path)
    assert values["stages"][1]["kind"] == verb
    assert f"{shown} (tuned) cost" in markdown.replace("\\", "")
    assert f'<span lang="en">{shown.replace("<", "&lt;").replace(">", "&gt;")}</span>' in page


def test_a_quantized_stage_follows_what_it_was_made_from(checkpoint: Path, tmp_path: Path) -> None:
    base = add_run(checkpoint, tmp_path / "life/base", "pretrain")
    small = Path(shutil.copytree(checkpoint, tmp_path / "life/small"))
    (small / ".mengya-source.json").write_text(json.dumps({"checkpoint": str(base)}))
    record = {"method": "gptq", "layout": "int4", "mean_bits": 4.5}
    (small / "quantization.json").write_text(json.dumps(record))
    add_loops(base, 10)
    add_loops(small, 60)
    values, markdown, _ = report(tmp_path)
    stage = values["stages"][1]
    assert (stage["kind"], stage["before"], stage["run"]) == ("quantized", 0, None)
    assert "gptq" in stage["config"] and stage["cost"]["hours"] is None
    assert stage["cost"]["weights_bytes"] > 0
    row = next(row for row in values["rows"] if row["name"] == "loops/greedy")
    assert row["cells"][1]["change"]["verdict"] == "worse"
    assert "### small" in markdown and "More loops" in markdown


def with_replay(folder: Path, shards: Path, text: int, talk: int) -> None:
    """As if the run had trained on so many tokens of text and of conversations."""
    for kind in ("text", "conversation"):
        (shards / kind).mkdir(parents=True, exist_ok=True)
        (shards / kind / "manifest.json").write_text(json.dumps({"kind": kind}))
    run = folder.parents[1]
    config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    config["data"]["train"] = [{"path": str(shards / kind)} for kind in ("text", "conversation")]
    (run / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    tokens = {"data/text/tokens": text, "data/conversation/tokens": talk}
    write_lines(run / "metrics.jsonl", [{"step": 60, "loss": 1.0, **tokens}])


def test_replay_is_seen_to_help(checkpoint: Path, tmp_path: Path) -> None:
    base = add_run(checkpoint, tmp_path / "life/base", "pretrain")
    add_text(base, BITS)
    for name, text, lost in (("with", 10, 2), ("without", 0, 6)):
        folder = add_run(checkpoint, tmp_path / "life" / name, "sft", base)
        add_text(folder, [each + lost for each in BITS])
        with_replay(folder, tmp_path / "shards", text, 90)
    values, markdown, _ = report(tmp_path)
    assert [stage["replay"] for stage in values["stages"]] == [None, 0.1, 0.0]
    (said,) = [line for line in markdown.splitlines() if "10.0%" in line and "without" in line]
    assert "0.400" in said


def add_judgement(folder: Path, first: Path, second: Path) -> None:
    figures = [
        Measurement("judge/win_rate", 0.7, (0.6, 0.75), 24, "share", "higher", 0.5),
        Measurement("judge/agreement", 0.9, (0.8, 0.95), 24, "share", "higher"),
    ]
    sides = [{"path": str(side), "sha256": subject_sha256(side)} for side in (first, second)]
    folder.mkdir()
    values = {
        "complete": True,
        "measurements": [figure.to_json() for figure in figures],
        "request": {"sides": sides, "model": "a judge", "seed": 0},
    }
    (folder / "judge.json").write_text(json.dumps(values))


def other_weights(folder: Path, epsilon: float) -> Path:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": epsilon}), "utf-8")
    return folder


@pytest.mark.parametrize(("tuned_is_first", "rate"), [(True, 0.7), (False, 0.3)])
def test_the_later_stage_has_the_win_rate(
    checkpoint: Path, tmp_path: Path, tuned_is_first: bool, rate: float
) -> None:
    base = add_run(checkpoint, tmp_path / "life/base", "sft")
    tuned = other_weights(add_run(checkpoint, tmp_path / "life/tuned", "dpo", base), 1e-4)
    sides = (tuned, base) if tuned_is_first else (base, tuned)
    add_judgement(tmp_path / "judged", *sides)
    values, markdown, page = report(tmp_path, f"judged={tmp_path / 'judged'}")
    row = next(row for row in values["rows"] if row["name"] == "judge/win_rate/base")
    assert row["headline"] and row["cells"][0] is None
    cell = row["cells"][1]
    assert cell["value"] == pytest.approx(rate) and cell["above_chance"] is tuned_is_first
    low, high = cell["interval"]
    assert low < rate < high
    assert values["origins"][cell["origin"]]["settings"]["model"] == "a judge"
    assert f"{rate:.1%}" in markdown and "mengya judge" in page


def test_a_judgement_of_other_weights_or_a_damaged_one_is_refused(
    checkpoint: Path, tmp_path: Path
) -> None:
    base = add_run(checkpoint, tmp_path / "life/base", "sft")
    add_judgement(tmp_path / "judged", base, base)
    other_weights(base, 1e-4)
    with pytest.raises(UserError, match="neither has the weights of a stage"):
        report(tmp_path, f"judged={tmp_path / 'judged'}")
    (tmp_path / "judged/judge.json").write_text("{}")
    with pytest.raises(UserError, match="not what `mengya judge` writes"):
        report(tmp_path, f"judged={tmp_path / 'judged'}")
    with pytest.raises(UserError, match="cannot be read"):
        report(tmp_path, f"judged={tmp_path / 'nowhere'}")
