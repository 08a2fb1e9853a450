"""The life found on disk, verdicts on changes, and the sentences about them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mengya.errors import UserError
from mengya.evaluation.card.content import card_values
from mengya.evaluation.card.curves import read_curves
from mengya.evaluation.card.life import find_life
from mengya.evaluation.card.render.markdown import render_markdown
from mengya.evaluation.card.stage import read_stage
from mengya.export.card.lineage import lineage_of
from mengya.stages.run.run_curve import logged_curve
from tests.evaluation.card.life import add_loops, add_run, add_text, write_lines


def card(*paths: Path) -> dict[str, Any]:
    values = card_values([read_stage(place, []) for place in find_life(paths)], "mengya report")
    return json.loads(json.dumps(values))


def cells(values: dict[str, Any], name: str) -> list[Any]:
    return next(row["cells"] for row in values["rows"] if row["name"] == name)


def sentences(values: dict[str, Any], stage: int) -> str:
    return " ".join(each["en"] for each in values["findings"] if each["stage"] == stage)


def test_stages_are_ordered_by_what_they_came_from(checkpoint: Path, tmp_path: Path) -> None:
    z = add_run(checkpoint, tmp_path / "z-base", "pretrain")
    m = add_run(checkpoint, tmp_path / "m-chat", "sft", z)
    add_run(checkpoint, tmp_path / "b-aligned", "dpo", m)
    add_run(checkpoint, tmp_path / "a-other", "sft", z)
    shutil.copytree(checkpoint, tmp_path / "c-small")
    (tmp_path / "c-small/.mengya-source.json").write_text(json.dumps({"checkpoint": str(m)}))
    (tmp_path / "c-small/quantization.json").write_text("{}")
    (tmp_path / "tokenizer").mkdir()  # no model
    places = find_life([tmp_path])
    assert [(place.name, place.before) for place in places] == [
        ("z-base", None), ("a-other", 0), ("m-chat", 0), ("b-aligned", 2), ("c-small", 2),
    ]  # fmt: skip
    assert [place.kind for place in places] == ["pretrain", "sft", "sft", "dpo", "quantized"]
    assert all(place.before_known for place in places[1:])
    typed = find_life([m, z])  # compare any two: in the order typed
    assert [place.name for place in typed] == ["m-chat", "z-base"]
    with pytest.raises(UserError, match="name it once"):
        find_life([m, tmp_path / "m-chat"])
    with pytest.raises(UserError, match="none of the folders"):
        find_life([tmp_path / "tokenizer"])


def test_changes_are_paired_and_forgetting_is_named(checkpoint: Path, tmp_path: Path) -> None:
    base = add_run(checkpoint, tmp_path / "base", "pretrain")
    tuned = add_run(checkpoint, tmp_path / "tuned", "sft", base)
    bits = [20.0 + i % 7 for i in range(40)]
    add_text(base, bits)
    add_text(tuned, [each + (9 if i % 2 else 3) + 0.1 * (i % 3) for i, each in enumerate(bits)])
    add_loops(base, 30)
    add_loops(tuned, 31)
    values = card(tmp_path)
    change = cells(values, "reference_text")[1]["change"]
    assert change["paired"] and change["items"] == 40 and change["verdict"] == "worse"
    assert change["mean"] == pytest.approx(0.61, abs=0.02) and change["p"] < 0.001
    assert cells(values, "loops/greedy")[1]["change"]["verdict"] == "same"
    said = sentences(values, 1)
    assert "SFT (tuned) cost 0.6" in said and "Most was lost in law" in said
    origin = values["origins"][cells(values, "loops/greedy")[0]["origin"]]
    assert origin["seed"] == 7 and origin["hardware"] == "a slow CPU" and origin["contamination"]


def test_what_cannot_be_compared_is_not(checkpoint: Path, tmp_path: Path) -> None:
    base = add_run(checkpoint, tmp_path / "base", "pretrain")
    tuned = add_run(checkpoint, tmp_path / "tuned", "sft", base)
    add_loops(base, 50)
    add_loops(tuned, 5, items=50)  # fewer questions: not the same items
    values = card(tmp_path)
    change = cells(values, "loops/greedy")[1]["change"]
    assert not change["paired"] and change["verdict"] == "better"
    file = tuned / "evaluation.json"
    evaluation = json.loads(file.read_text("utf-8"))
    evaluation["measured_by"]["yardsticks/loops"]["settings"]["yardstick"] = {"limit": 3}
    file.write_text(json.dumps(evaluation), "utf-8")
    cell = cells(card(tmp_path), "loops/greedy")[1]
    assert cell["change"] is None and not cell["comparable"]
    evaluation["checkpoint_sha256"] = "0" * 64
    file.write_text(json.dumps(evaluation), "utf-8")
    values = card(tmp_path)
    assert values["stages"][1]["is_stale"] and cells(values, "loops/greedy")[1] is None
    assert "no figure in common" in sentences(values, 1)


def test_marks_are_in_the_curves(checkpoint: Path, tmp_path: Path) -> None:
    add_run(checkpoint, tmp_path / "run", "pretrain")
    marks = {(mark.step, mark.kind) for mark in read_curves(tmp_path / "run").marks}
    assert marks == {(25, "epoch"), (50, "epoch"), (31, "skipped"), (40, "spike")}
    events = [
        {"step": 20, "event": "resume", "hardware": "a GPU", "devices": 2},
        {"step": 33, "event": "skipped", "text": "gradient norm is nan"},
    ]  # fmt: skip
    write_lines(tmp_path / "run/events.jsonl", events)
    marks = {(mark.step, mark.kind) for mark in read_curves(tmp_path / "run").marks}
    assert {(20, "resume"), (33, "skipped"), (40, "spike")} <= marks and (
        31,
        "skipped",
    ) not in marks
    cost = card(tmp_path / "run")["stages"][0]["cost"]
    assert (cost["hardware"], cost["devices"], cost["steps"], cost["tokens"]) == (
        "a GPU",
        2,
        60,
        60000,
    )
    assert cost["hours"] == pytest.approx(60 / 3600)


@pytest.mark.parametrize(
    ("watts", "kwh"),
    [((500.0, 500.0), 1.0), ((400.0, 700.0), 1.1), ((500.0, None), None), ((None, None), None)],
)
def test_energy_is_watts_times_hours_and_never_a_part_of_it(
    checkpoint: Path, tmp_path: Path, watts: tuple[float | None, float | None], kwh: float | None
) -> None:
    folder = add_run(checkpoint, tmp_path / "run", "pretrain")
    hour = 3_600_000  # tokens at 1000 a second
    lines: list[dict[str, Any]] = [
        {"step": 30 * n, "loss": 1.0, "tokens": n * hour, "tokens_per_second": 1000.0}
        | ({"power_watts": each} if each is not None else {})
        for n, each in enumerate(watts, 1)
    ]
    write_lines(folder.parents[1] / "metrics.jsonl", lines)
    cost = card(tmp_path / "run")["stages"][0]["cost"]
    assert cost["hours"] == pytest.approx(2)
    assert cost["energy_kwh"] == (None if kwh is None else pytest.approx(kwh))


def test_the_schema_of_the_json(checkpoint: Path, tmp_path: Path) -> None:
    add_loops(add_run(checkpoint, tmp_path / "run", "pretrain"), 3)
    values = card(tmp_path / "run")
    assert values["format"] == 1
    assert set(values) == {
        "format", "mengya", "command", "stages", "findings", "rows", "origins", "samples", "comparisons",
    }  # fmt: skip
    assert set(values["rows"][0]) == {
        "name", "title", "part", "group", "headline", "unit", "better", "chance", "cells",
    }  # fmt: skip
    assert set(cells(values, "loops/greedy")[0]) == {
        "value", "interval", "items", "above_chance", "note", "comparable", "change", "origin",
    }  # fmt: skip
    assert set(values["stages"][0]) == {
        "id", "name", "kind", "folder", "run", "before", "before_known", "checkpoint_sha256", "is_stale",
        "cost", "replay", "data", "checked", "starts", "config", "training_samples", "curves",
    }  # fmt: skip


def test_files_of_a_run_that_were_changed_by_hand(checkpoint: Path, tmp_path: Path) -> None:
    stage = add_run(checkpoint, tmp_path / "base", "pretrain")
    odd = {"event": "start", "step": None, "command": 5, "hardware": {"a": 1}, "devices": "x"}
    write_lines(tmp_path / "base/events.jsonl", [odd])
    (tmp_path / "base/config.yaml").write_text("data: {train: 5}\nloop: none\nmodel: {}\n", "utf-8")
    assert lineage_of(stage).runs[0].sources == [] and logged_curve(tmp_path / "base") is None
    assert "{'a': 1}" in render_markdown(card(stage), "en").replace("\\", "")
    (tmp_path / "base/config.yaml").write_text("[1", "utf-8")
    assert logged_curve(tmp_path / "base") is None
    record = {"run": "grpo", "shards": "x", "contamination": {"exams": [{"name": "a"}]}}
    (stage / "training_data.json").write_text(json.dumps({"format": 1, "data": [record]}))
    with pytest.raises(UserError, match=r"training_data\.json is damaged"):
        card(stage)


def test_stages_that_name_each_other_are_no_circle(checkpoint: Path, tmp_path: Path) -> None:
    for name, source in (("a", "b"), ("b", "a"), ("c", "c")):
        folder = shutil.copytree(checkpoint, tmp_path / name)
        values = {"checkpoint": str(tmp_path / source)}
        (folder / ".mengya-source.json").write_text(json.dumps(values))
    places = find_life([tmp_path / name for name in "abc"])
    assert [place.before for place in places] == [None, 0, 1]
    assert [place.before_known for place in places] == [False, True, False]


def test_items_that_were_changed_by_hand_are_left_out(checkpoint: Path, tmp_path: Path) -> None:
    stage = add_run(checkpoint, tmp_path / "base", "pretrain")
    add_loops(stage, 3)
    items = stage / "evaluation_items/loops.jsonl"
    items.write_text(items.read_text("utf-8") + '{"part": "greedy", "id": 5}\n{}\n', "utf-8")
    assert cells(card(stage), "loops/greedy")[0]["value"] is not None
