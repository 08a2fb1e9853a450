"""evaluation.json: figures of several commands, the same bytes twice, nothing of another checkpoint."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from mengya.cli import read_arguments
from mengya.errors import UserError
from mengya.evaluation import measure as measuring
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig, YardstickResult
from mengya.measured.measurement import Measurement
from mengya.models.hf.checkpoint import load_causal_lm, write_folder
from mengya.stages import compare
from mengya.stages.evaluate import EvaluateConfig, run
from mengya.tokenizer.load import load_tokenizer

ARGUMENTS = ["device=cpu", "threads=1"]


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three yardsticks of the vocabulary, and the names of those that ran."""
    ran: list[str] = []

    def of(name: str):
        def yardstick(subject: Subject, config: YardstickConfig) -> YardstickResult:
            ran.append(name)
            scores = [float(len(subject.tokenizer)), float(config.seed)]
            items = [{"part": name, "id": i, "score": score} for i, score in enumerate(scores)]
            mean = sum(scores) / len(scores)
            return YardstickResult(
                [Measurement(name, mean, (0.0, mean), len(items), "points", "higher")], items
            )

        return yardstick

    yardsticks = {name: of(name) for name in ("rows", "seeds", "identity")}
    for module in ("config", "measure"):
        monkeypatch.setattr(f"mengya.evaluation.{module}.YARDSTICKS", yardsticks)
    return ran


def evaluate(folder: Path, *arguments: str) -> dict[str, Any]:
    run(read_arguments(EvaluateConfig, "checkpoint", [str(folder), *ARGUMENTS, *arguments]))
    return json.loads((folder / "evaluation.json").read_text("utf-8"))


def everything(folder: Path) -> dict[str, bytes]:
    files = [folder / "evaluation.json", *(folder / "evaluation_items").iterdir()]
    return {file.name: file.read_bytes() for file in files}


def test_the_same_command_writes_the_same_bytes(folder: Path, measured: list[str]) -> None:
    evaluate(folder, "yardsticks=rows", "passkey.lengths=[128]", "passkey.samples=2")
    first = everything(folder)
    assert set(first) == {"evaluation.json", "rows.jsonl"}
    evaluate(folder, "yardsticks=rows", "passkey.lengths=[128]", "passkey.samples=2", "again=true")
    assert everything(folder) == first and measured == ["rows", "rows"]


def test_a_name_of_the_model_measures_nothing_but_identity_again(
    folder: Path, measured: list[str]
) -> None:
    evaluate(folder, "yardsticks=[rows, identity]")
    evaluate(folder, "yardsticks=[rows, identity]", "yardstick.name=小芽")
    evaluate(folder, "yardsticks=[rows, identity]", "yardstick.name=小芽")
    assert measured == ["rows", "identity", "identity"]


def test_figures_of_several_commands_are_kept_together(folder: Path, measured: list[str]) -> None:
    evaluate(folder, "yardsticks=rows")
    values = evaluate(folder, "yardsticks=[seeds, rows]")
    assert measured == ["rows", "seeds"]  # rows was there already
    assert set(values["yardsticks"]) == {"rows", "seeds"}
    by = values["measured_by"]
    assert (
        by["yardsticks/rows"]["command"].endswith("yardsticks='[\"rows\"]'")
        or "rows" in by["yardsticks/rows"]["command"]
    )
    assert by["yardsticks/rows"]["command"] != by["yardsticks/seeds"]["command"]
    evaluate(folder, "yardsticks=rows", "yardstick.limit=1")
    assert measured == ["rows", "seeds", "rows"]  # another setting is another figure


def test_a_changed_checkpoint_drops_its_figures_and_says_so(
    folder: Path, measured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(folder, "yardsticks=[rows, seeds]")
    model = load_causal_lm(folder)
    model.lm_head.weight.data[0] += 1
    (folder / "model.safetensors").unlink()
    write_folder(model, load_tokenizer(folder), folder, model.lm_head.weight.dtype, folder)
    changed = shutil.copytree(folder, folder.with_name("changed"))
    evaluate(
        changed, "yardsticks=[rows, seeds]"
    )  # the second does not take the items of the first away
    assert {file.stem for file in (changed / "evaluation_items").iterdir()} == {"rows", "seeds"}
    values = evaluate(folder, "yardsticks=rows")
    assert (
        set(values["yardsticks"])
        == {"rows"}
        == {file.stem for file in (folder / "evaluation_items").iterdir()}
    )
    assert "changed" in (said := capsys.readouterr().err) and "yardsticks/seeds" in said
    assert measured == ["rows", "seeds", "rows", "seeds", "rows"]


def test_one_seed_for_all_that_is_drawn_and_a_command_that_can_be_typed_again(
    folder: Path, measured: list[str]
) -> None:
    values = evaluate(
        folder, "yardsticks=seeds", "seed=7", "passkey.samples=1", "passkey.lengths=[128]"
    )
    assert values["yardsticks"]["seeds"][0]["value"] == (300 + 7) / 2
    assert values["config"]["passkey"]["seed"] == 7 == values["provenance"]["seed"]
    program, verb, *arguments = shlex.split(values["provenance"]["command"])
    assert (program, verb) == ("mengya", "evaluate")
    again = read_arguments(EvaluateConfig, "checkpoint", arguments)
    assert again.model_dump(mode="json", exclude={"again"}) == values["config"]
    for name in ("device", "hardware", "dtype", "contamination", "tokenizer_sha256"):
        assert values["provenance"][name]
    assert set(values["provenance"]["versions"]) >= {"mengya", "torch", "transformers"}


NOT_EVALUATIONS = ['{"text": "years of work"}', "[1]", "{", "", '{"checkpoint": "a", "yardsticks": 7}',
                   '{"checkpoint": "a", "measured_by": {"text": 5}}']  # fmt: skip


@pytest.mark.parametrize("text", NOT_EVALUATIONS)
def test_what_is_no_evaluation_is_never_replaced(
    folder: Path, measured: list[str], tmp_path: Path, text: str
) -> None:
    (out := tmp_path / "thesis.json").write_text(text)
    with pytest.raises(UserError, match=r"thesis\.json is not what .* move it elsewhere"):
        evaluate(folder, "yardsticks=rows", f"out={out}")
    assert out.read_text() == text and not measured


def test_devices_and_folders_are_refused_before_anything_is_measured(
    folder: Path, measured: list[str], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for out in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):  # reading the last never ends
        with pytest.raises(UserError, match="name a file"):
            evaluate(folder, "yardsticks=rows", f"out={out}")
    assert (tmp_path / "pipe").is_fifo() and not measured


@pytest.mark.parametrize(
    "change", [{"value": "x"}, {"value": float("nan")}, {"more": 1}, {"interval": [0]}]
)
def test_a_figure_that_was_changed_by_hand_is_named(
    folder: Path, measured: list[str], change: dict[str, Any]
) -> None:
    values = evaluate(folder, "yardsticks=rows")
    values["yardsticks"]["rows"][0] |= change
    (folder / "evaluation.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=f"{next(iter(change))}.*again=true"):
        evaluate(folder, "yardsticks=rows")
    with pytest.raises(UserError, match=r"evaluation\.json: yardsticks .* measure again"):
        compare.run(compare.CompareConfig(runs=[folder], out=folder / "compare.html"))
    values["measured_by"]["yardsticks/rows"].pop("settings")  # who knows what was measured there
    (folder / "evaluation.json").write_text(json.dumps(values))
    evaluate(folder, "yardsticks=rows")
    assert measured == ["rows", "rows"]


def test_one_process_at_a_time_writes_the_figures_of_a_checkpoint(
    folder: Path, measured: list[str]
) -> None:
    config = EvaluateConfig(checkpoint=folder, yardsticks=["rows"], device="cpu")
    with (
        measuring.open_file(config),
        pytest.raises(UserError, match=r"evaluation\.json is being written by `mengya evaluate`"),
    ):
        evaluate(folder, "yardsticks=rows")
    evaluate(folder, "yardsticks=rows")
    assert measured == ["rows"] and not list(folder.glob(".*mengya-lock"))


def test_weights_that_are_not_finite_are_refused(folder: Path, measured: list[str]) -> None:
    model = load_causal_lm(folder)
    model.lm_head.weight.data[0] = float("nan")
    write_folder(model, load_tokenizer(folder), folder, model.lm_head.weight.dtype, folder)
    with pytest.raises(UserError, match=r"lm_head\.weight holds NaN"):
        evaluate(folder, "yardsticks=rows")
    assert not measured and not (folder / "evaluation.json").exists()


def test_what_was_finished_before_a_crash_is_kept(
    folder: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(subject: Subject, config: YardstickConfig) -> YardstickResult:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setitem(vars(measuring)["YARDSTICKS"], "seeds", crash)
        with pytest.raises(RuntimeError):
            evaluate(folder, "yardsticks=[rows, seeds]")
    assert set(evaluate(folder, "yardsticks=[rows, seeds]")["yardsticks"]) == {"rows", "seeds"}
    assert measured == ["rows", "seeds"]
