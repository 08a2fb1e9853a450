"""A plan says what training then does; every warning speaks when it should and is silent otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mengya.cli import app
from mengya.config import load_config
from mengya.errors import UserError
from mengya.planning.hardware import expected_mfu, named_device
from mengya.planning.inputs import Hardware
from mengya.planning.lint import lint_plan
from mengya.planning.plan import Plan
from mengya.runtime.jsonl import read_steps
from mengya.stages.plan import make_plan
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.pretrain import run as pretrain
from tests.helpers.stage_fixtures import MODEL, StageFixtures

ROOT = Path(__file__).parents[2]
H200 = Hardware(device="h200")
LARGE = ["global_batch_size=256", "micro_batch_size=256"]
RECIPE = {
    "run_dir": "runs/x", "tokenizer": "runs/x/tokenizer", "max_steps": 2000,
    "data": {"train": ["runs/x/shards"], "sequence_length": 1024},
    "model": {"vocab_size": 6400, "max_position_embeddings": 2048},
    "micro_batch_size": 64, "global_batch_size": 128, "optimizer": {"lr": 2e-3},
}  # fmt: skip


def write(folder: Path, values: dict[str, Any], name: str = "pretrain.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write(tmp_path, RECIPE)


def rules(plan: Plan) -> set[str]:
    return {warning.rule for warning in lint_plan(plan)} - {"data"}


def test_a_sound_recipe_has_no_warning(recipe: Path) -> None:
    assert rules(make_plan(recipe, hardware=H200)) == set()


@pytest.mark.parametrize(
    ("rule", "overrides", "hardware", "said"),
    [
        ("memory", LARGE, Hardware("rtx4090"), "write micro_batch_size=128 (2"),
        ("memory", [], Hardware("h100", memory_gib=1.0), "one row with gradient_checkpointing"),
        ("batch_split", [], Hardware("h200", devices=3), "write global_batch_size=192"),
        ("context", ["data.sequence_length=4096"], H200, "sequence_length 4,096 is above the 2,048"),
        ("vocabulary", ["model.vocab_size=151669"], H200, "takes 77% of the parameters"),
        ("vocabulary", ["model.tie_word_embeddings=false", "model.vocab_size=64000"], H200, "tie_"),
        ("tokens", ["max_steps=300"], H200, "1.5 tokens per parameter, far below the 20"),
        ("tokens", ["max_steps=200000", "global_batch_size=1024"], H200, "far above the 20"),
        ("batch", ["global_batch_size=2048"], H200, "2,097,152 tokens a step are far above"),
        ("batch", ["global_batch_size=2", "micro_batch_size=2"], H200, "are far below"),
        ("learning_rate", ["optimizer.lr=0.5"], H200, "optimizer.lr 0.5 is outside"),
        ("learning_rate", ["optimizer.name=muon", "optimizer.muon.lr=1"], H200, "muon.lr 1 is outs"),
        ("warmup", ["schedule.warmup_steps=2000"], H200, "not shorter than the run of 2000 steps"),
        ("widths", ["model.head_dim=60"], H200, "head_dim 60 of 8"),
        ("widths", ["model.intermediate_size=1400"], H200, "intermediate_size=1408"),
        ("peak", ["precision=fp32"], Hardware("v100"), "--peak-tflops"),
    ],
)  # fmt: skip
def test_each_warning_speaks(
    recipe: Path, rule: str, overrides: list[str], hardware: Hardware, said: str
) -> None:
    plan = make_plan(recipe, overrides, hardware)
    found = [f"{w.message} -> {w.remedy}" for w in lint_plan(plan) if w.rule == rule]
    assert any(said in text for text in found), found


def test_repeated_data_is_warned_of_from_the_fifth_time_on(tmp_path: Path) -> None:
    recipe = write(tmp_path, {**RECIPE, "max_steps": None, "epochs": 5})
    assert "epochs" in rules(make_plan(recipe, hardware=H200, data_tokens=1e8))
    four = make_plan(recipe, ["epochs=4"], H200, data_tokens=1e8)
    assert "epochs" not in rules(four) and four.steps == 3052


def test_the_suggested_fit_fits(recipe: Path) -> None:
    """The remedy's own number of rows, tried."""
    card = Hardware("rtx4090")
    assert rules(make_plan(recipe, LARGE, card)) == {"memory"}
    assert rules(make_plan(recipe, [*LARGE, "micro_batch_size=128"], card)) == set()


def test_problems_of_a_recipe_are_all_named_at_once(recipe: Path) -> None:
    with pytest.raises(UserError) as error:
        make_plan(recipe, ["micro_batch_sise=8", "model.hidden_size=-1"], H200)
    assert "2 problems" in str(error.value) and "micro_batch_size" in str(error.value)


def test_an_unknown_device_gets_the_known_ones(recipe: Path) -> None:
    with pytest.raises(UserError, match=r"'rtx4085' is not known .*h200.*rtx4090.*--peak-tflops"):
        make_plan(recipe, hardware=Hardware("rtx4085"))


def test_a_device_of_ones_own(recipe: Path) -> None:
    own = Hardware("b300", devices=2, peak_tflops=2250, memory_gib=288, price_per_hour=4.0)
    plan = make_plan(recipe, hardware=own)
    assert plan.device.peak_flops == 2250e12 and plan.device.memory == 288 * 2**30
    assert plan.seconds and plan.cost == pytest.approx(plan.seconds / 3600 * 2 * 4)


def test_old_cards_compute_in_fp16(recipe: Path) -> None:
    assert make_plan(recipe, hardware=Hardware("v100")).settings.compute_bytes == 2
    with pytest.raises(UserError, match="v100 has no bf16"):
        make_plan(recipe, ["precision=bf16"], Hardware("v100"))


def test_fp8_keeps_less_and_is_of_new_cards(recipe: Path) -> None:
    fp8 = ["precision=fp8"]
    plain, ours = (make_plan(recipe, extra, hardware=H200) for extra in ([], fp8))
    assert ours.memory.activations < 0.9 * plain.memory.activations
    assert ours.expected is not None and plain.expected is not None
    assert ours.expected.mfu > plain.expected.mfu
    for device in ("a100", "v100"):
        with pytest.raises(UserError, match=f"precision=fp8, but {device} does not multiply fp8"):
            make_plan(recipe, fp8, hardware=Hardware(device))
    experts = ["num_experts=4", "num_experts_per_tok=1", "norm_topk_prob=false"]
    experts = [f"model.{text}" for text in experts]
    with pytest.raises(UserError, match="they are experts, adapted or quantized"):
        make_plan(recipe, fp8 + experts, hardware=H200)


def test_the_expected_mfu_is_the_measured_one_where_there_is_one() -> None:
    h100 = named_device("H100")
    measured = expected_mfu("dense", "compile", 512, 0.114, h100)
    assert measured.mfu == pytest.approx(0.320, abs=0.001) and not measured.estimate
    wider = expected_mfu("dense", "compile", 640, 0.09, h100)
    assert measured.mfu < wider.mfu < 0.383
    driver = h100._replace(name="NVIDIA H100 80GB HBM3")
    assert expected_mfu("dense", "compile", 512, 0.114, driver) == measured
    for other in ("t4", "h200"):
        assert expected_mfu("dense", "compile", 512, 0.114, named_device(other)).estimate


def test_the_verb_is_found_by_name_or_by_keys(tmp_path: Path, fixtures: StageFixtures) -> None:
    settings = fixtures.settings("preference", tmp_path / "run")
    settings = json.loads(json.dumps(settings, default=str))
    named = write(tmp_path, settings, "dpo.yaml")
    assert make_plan(named, hardware=H200).verb == "dpo"
    assert make_plan(write(tmp_path, {**settings, "beta": 0.2}, "a.yaml")).verb == "dpo"
    silent = write(tmp_path, settings, "b.yaml")
    with pytest.raises(UserError, match="--verb sft"):
        make_plan(silent)
    plan = make_plan(silent, verb="dpo")
    assert plan.memory.reference == plan.memory.weights
    with_lora = make_plan(silent, ["lora.rank=4"], verb="dpo")
    assert with_lora.memory.reference == 0 and with_lora.trained < plan.trained


@pytest.mark.parametrize("verb", ["pretrain", "sft", "dpo"])
def test_recipes_of_models_that_are_not_there_yet(verb: str) -> None:
    """zh-26m: SFT starts from pretraining and DPO from SFT, none of which has run."""
    plan = make_plan(ROOT / f"recipes/zh-26m/{verb}.yaml", hardware=H200)
    assert (plan.verb, plan.counts.total) == (verb, 25_830_912)


def test_a_model_that_nothing_makes(tmp_path: Path) -> None:
    values = {"run_dir": "r", "init_from": "no/such", "max_steps": 1, "data": {"train": ["s"]}}
    with pytest.raises(UserError, match="no recipe next to"):
        make_plan(write(tmp_path, values, "sft.yaml"))


def test_the_plan_of_a_run_is_what_the_run_does(tmp_path: Path, fixtures: StageFixtures) -> None:
    settings = fixtures.settings("text", tmp_path / "run")
    settings["model"] = {"vocab_size": 400, **MODEL}
    settings["max_steps"], settings["epochs"] = None, 2
    settings = json.loads(json.dumps(settings, default=str))
    plan = make_plan(write(tmp_path, settings))
    assert pretrain(load_config(PretrainConfig, tmp_path / "pretrain.yaml"))
    last = [m for m in read_steps(tmp_path / "run/metrics.jsonl") if "tokens" in m][-1]
    assert plan.steps == last["step"]
    # Rows are not equally full, and the last step goes a little beyond the epoch.
    assert plan.tokens == pytest.approx(last["tokens"], rel=0.05)
    assert "mfu" not in last  # nobody knows the peak of a CPU
    assert plan.data.visible < 40 < plan.config.data.sequence_length  # short documents in long rows


def test_json_has_its_keys_and_needs_no_gpu(recipe: Path) -> None:
    command = ["plan", str(recipe), "--json", "--price-per-hour=2"]
    own_memory = ["--memory-gib", "64"]  # whatever this machine has: there is one warning
    for arguments in (own_memory, ["--device", "h100", "--devices", "2"]):
        done = CliRunner().invoke(app, [*command, *arguments], catch_exceptions=False)
        found = json.loads(done.stdout)
        assert {name: sorted(v) for name, v in found.items() if isinstance(v, dict)} == {
            "parameters": ["active", "embedding", "total", "trained"],
            "data": ["fill", "missing", "phases", "rows", "sources", "visible"],
            "run": ["batch_rows", "epochs", "sequence_length", "steps", "tokens"],
            "flops": ["attention", "layers", "output", "per_token", "recomputed", "run"],
            "device": ["devices", "memory", "name", "peak_flops"],
            "memory": [
                "activations", "allocated", "communication", "compute_copy", "gradients", "logits",
                "needed", "optimizer", "reference", "reserve", "weights",
            ],
            "speed": [
                "cost", "estimate", "mfu", "price_per_hour", "seconds", "seconds_per_step", "source",
                "tokens_per_second",
            ],
        }  # fmt: skip
        assert found.keys() - {"parameters", "data", "run", "flops", "device", "memory", "speed"} == {
            "recipe", "verb", "class", "warnings",
        }  # fmt: skip
        assert [sorted(w) for w in found["warnings"]] == [["message", "remedy", "rule"]]
        assert found["parameters"]["total"] == 25_830_912


def test_the_table_is_80_columns_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command = ["plan", "recipes/buddy-0.1b", "--device", "rtx4090"]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "80"}, catch_exceptions=False)
    assert max(map(len, done.stdout.splitlines())) <= 80
    for text in ("158,974,464", "73% of all", "optimizer state", "tokens/s", "warning: vocabulary"):
        assert text in done.stdout


def test_no_weight_gets_memory(recipe: Path) -> None:
    plan = make_plan(ROOT / "recipes/bumblebee-1.5b", hardware=H200)
    assert all(p.is_meta for p in plan.model.parameters())
    assert plan.counts.total == 1_543_714_304
