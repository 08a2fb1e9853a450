"""A run resumes with the optimizer that it was trained with, and with no other: real runs of a stage."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mengya.config import load_config, save_config
from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import write_folder
from mengya.stages import merge, pretrain, sft
from mengya.stages.merge import MergeConfig
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.sft import SftConfig
from mengya.tokenizer.load import load_tokenizer
from mengya.training.checkpoint.integrity import seal
from tests.helpers.several_processes import start, zero
from tests.helpers.stage_fixtures import MODEL, StageFixtures
from tests.helpers.training_runs import final_bytes

NAMES = ["adamw", "muon", "normuon", "galore"]
DENSE = {**MODEL, "vocab_size": 400}
RECORD = "checkpoints/latest/trainer/optimizer.json"


def run_of(
    fixtures: StageFixtures, run_dir: Path, name: str, steps: int, **more: Any
) -> PretrainConfig:
    optimizer = {"name": name, "lr": 1e-2, "galore": {"rank": 4, "update_every": 3}}
    settings: dict[str, Any] = {
        "model": DENSE, "optimizer": optimizer, "max_steps": steps, "schedule": {"name": "constant"},
        "loop": {"log_every": 1, "eval_every": 40, "save_every": 4, "sample_every": 40}, **more,
    }  # fmt: skip
    return PretrainConfig(**fixtures.settings("text", run_dir, **settings))


@pytest.fixture(scope="module")
def stopped(fixtures: StageFixtures, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """optimizer.name -> the folder of a run of four steps."""
    root = tmp_path_factory.mktemp("stopped")
    for name in NAMES:
        pretrain.run(run_of(fixtures, root / name, name, steps=4))
    return {name: root / name for name in NAMES}


def of_an_earlier_version(run_dir: Path) -> None:
    """Make the checkpoint one of 39e0b2c, which wrote no trainer/optimizer.json."""
    (run_dir / RECORD).unlink()
    seal((run_dir / "checkpoints/latest").resolve())


@pytest.mark.parametrize("earlier", [False, True], ids=["", "39e0b2c"])
@pytest.mark.parametrize(("was", "now"), permutations(NAMES, 2))
def test_another_optimizer_is_refused_by_name(
    was: str,
    now: str,
    earlier: bool,
    fixtures: StageFixtures,
    stopped: dict[str, Path],
    tmp_path: Path,
) -> None:
    run_dir = shutil.copytree(stopped[was], tmp_path / "run", symlinks=True)
    if earlier:
        of_an_earlier_version(run_dir)
    before = {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file()}
    with pytest.raises(UserError) as caught:
        pretrain.run(run_of(fixtures, run_dir, now, steps=6, resume=True))
    checkpoint = run_dir / "checkpoints/step-000004"
    assert str(caught.value) == (
        f"{checkpoint} was trained with optimizer.name={was}, this run says {now}; write "
        f"optimizer.name={was} to resume it, or start a new run from its weights: "
        f"init_from={checkpoint} model=null run_dir=ANOTHER_FOLDER"
    )
    assert {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("now", ["adamw", "muon"])
def test_both_remedies_are_accepted_when_typed(
    now: str, fixtures: StageFixtures, stopped: dict[str, Path], tmp_path: Path
) -> None:
    run_dir = shutil.copytree(stopped["galore"], tmp_path / "run", symlinks=True)
    recipe = tmp_path / "recipe.yaml"
    save_config(run_of(fixtures, run_dir, now, steps=6, resume=True), recipe)
    with pytest.raises(UserError) as caught:
        pretrain.run(load_config(PretrainConfig, recipe))
    resume, _, new = str(caught.value).partition("; write ")[2].partition(" to resume it, or ")
    other = new.rpartition(": ")[2].replace("ANOTHER_FOLDER", str(tmp_path / "other"))
    pretrain.run(load_config(PretrainConfig, recipe, other.split()))
    pretrain.run(load_config(PretrainConfig, recipe, [resume]))
    for folder, name in ((tmp_path / "other", now), (run_dir, "galore")):
        state = json.loads((folder / "checkpoints/latest/trainer/state.json").read_text())
        assert state["step"] == 6
        assert json.loads((folder / RECORD).read_text())["name"] == name


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_of_an_earlier_version_resumes_bit_for_bit(
    name: str, fixtures: StageFixtures, stopped: dict[str, Path], tmp_path: Path
) -> None:
    pretrain.run(run_of(fixtures, tmp_path / "full", name, steps=8))
    run_dir = shutil.copytree(stopped[name], tmp_path / "run", symlinks=True)
    of_an_earlier_version(run_dir)
    pretrain.run(run_of(fixtures, run_dir, name, steps=8, resume=True))
    assert final_bytes(run_dir) == final_bytes(tmp_path / "full")


def test_another_rank_of_galore_is_refused_and_the_rank_named_is_accepted(
    fixtures: StageFixtures, stopped: dict[str, Path], tmp_path: Path
) -> None:
    run_dir = shutil.copytree(stopped["galore"], tmp_path / "run", symlinks=True)
    recipe = tmp_path / "recipe.yaml"
    save_config(run_of(fixtures, run_dir, "galore", steps=5, resume=True), recipe)
    with pytest.raises(UserError, match=r"rank 4, .* of 6; write optimizer\.galore\.rank=4 to"):
        pretrain.run(load_config(PretrainConfig, recipe, ["optimizer.galore.rank=6"]))
    pretrain.run(load_config(PretrainConfig, recipe, ["optimizer.galore.rank=4"]))


def test_a_parameter_that_changed_shape_is_named_before_anything_is_loaded(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    """The folder of init_from was replaced by a wider model, which no setting of the run shows."""
    base = shutil.copytree(fixtures.base, tmp_path / "base")
    more: dict[str, Any] = {"max_steps": 2, "init_from": base}
    config = SftConfig(**{**fixtures.settings("conversation", tmp_path / "run"), **more})
    sft.run(config)
    tokenizer = load_tokenizer(fixtures.tokenizer)
    wider = ModelConfig(**{**MODEL, "intermediate_size": 96}, vocab_size=len(tokenizer))
    shutil.rmtree(base)
    write_folder(CausalLM(wider), tokenizer, fixtures.tokenizer, torch.float32, base)
    # As of an earlier version: nothing else compares the base.
    (tmp_path / "run/inputs.json").unlink()
    again = config.model_copy(update={"resume": True, "max_steps": 3})
    with pytest.raises(UserError) as caught:
        sft.run(again)
    assert re.search(
        r"step-000002 has model\.layers\.0\.mlp\.gate_up_proj\.weight in the shape \[128, 32\], "
        r"this run in \[192, 32\]|mlp\.\w+_proj\.weight in the shape \[64, 32\], this run in \[96, 32\]",
        str(caught.value),
    )
    assert f"init_from={tmp_path}/run/checkpoints/step-000002 run_dir=" in str(caught.value)


def test_the_new_run_of_a_lora_run_begins_with_a_merge(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    """The settings say another run: its config.yaml was edited, so only the checkpoint can tell."""
    settings: dict[str, Any] = {"lora": {"rank": 4}, "max_steps": 2}
    settings = fixtures.settings("conversation", tmp_path / "run", **settings)
    sft.run(SftConfig(**settings))
    edited = tmp_path / "run/config.yaml"
    values = yaml.safe_load(edited.read_text())
    values["lora"]["rank"] = 8
    edited.write_text(yaml.safe_dump(values))
    with pytest.raises(
        UserError, match=r"lora_A\S* in the shape \[4, 32\], this run in \[8, 32\]"
    ) as e:
        sft.run(load_config(SftConfig, edited, ["resume=true"]))
    typed = re.search(
        r"mengya merge (\S+) out=FOLDER, then (init_from=\S+ run_dir=\S+)", str(e.value)
    )
    assert typed is not None
    merge.run(MergeConfig(checkpoint=Path(typed[1]), out=tmp_path / "merged"))
    words = typed[2].replace("ANOTHER_FOLDER", str(tmp_path / "other"))
    words = words.replace("FOLDER", str(tmp_path / "merged"))
    sft.run(load_config(SftConfig, edited, words.split()))


@pytest.mark.parametrize("engine", ["ddp", "fsdp", "zero1"])
def test_every_rank_of_every_engine_refuses_another_optimizer(
    engine: str, fixtures: StageFixtures, stopped: dict[str, Path], tmp_path: Path
) -> None:
    strategy: dict[str, Any] = {"name": engine}
    if engine == "zero1":
        pytest.importorskip("deepspeed")
        strategy = zero(1)
    run_dir = shutil.copytree(stopped["muon"], tmp_path / "run", symlinks=True)
    config = run_of(fixtures, run_dir, "adamw", steps=6, strategy=strategy)
    process = start(config, 2, stderr=subprocess.PIPE)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    said = " ".join(said.split())
    assert said.count("was trained with optimizer.name=muon, this run says adamw; write") == 1
