"""What a run reads by name may not come to mean something else; what else changes on resume is said."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mengya.config import load_config
from mengya.errors import UserError
from mengya.models.adapters.lora import load_merged
from mengya.stages import dpo, merge, pretrain, sft
from mengya.stages.dpo import DpoConfig
from mengya.stages.merge import MergeConfig
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.sft import SftConfig
from tests.helpers.stage_fixtures import MODEL, StageFixtures

SHORT: dict[str, Any] = {
    "max_steps": 2, "loop": {"log_every": 1, "eval_every": 9, "save_every": 9, "sample_every": 9},
}  # fmt: skip
LORA = {"rank": 4, "alpha": 8}


def other_weights(base: Path, out: Path) -> Path:
    """A folder of the same shape with weights that are larger by a tenth."""
    if base != out:
        shutil.copytree(base, out)
    tensors = load_file(base / "model.safetensors")
    save_file({n: t * 1.1 for n, t in tensors.items()}, out / "model.safetensors", {"format": "pt"})
    return out


@pytest.fixture
def linked(fixtures: StageFixtures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """X/latest -> first; the link of a run that continues."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(fixtures.base, tmp_path / "X/first")
    other_weights(fixtures.base, tmp_path / "X/second")
    (tmp_path / "X/latest").symlink_to("first")
    return Path("X/latest")


def move(link: Path, target: str) -> None:
    link.unlink()
    link.symlink_to(target)


@pytest.mark.parametrize(
    ("stage", "config_class", "kind", "more"),
    [
        (sft, SftConfig, "conversation", {"lora": LORA}),
        (dpo, DpoConfig, "preference", {}),
        (dpo, DpoConfig, "preference", {"lora": LORA}),
    ],
)
def test_a_moved_link_does_not_change_the_base_and_the_remedy_is_accepted(
    fixtures: StageFixtures,
    linked: Path,
    stage: Any,
    config_class: Any,
    kind: str,
    more: dict[str, Any],
) -> None:
    settings = {**fixtures.settings(kind, Path("run"), **SHORT, **more), "init_from": linked}
    stage.run(config_class(**settings))
    assert load_config(config_class, Path("run/config.yaml")).init_from == Path("X/first")
    move(linked, "second")
    longer = {**settings, "resume": True, "max_steps": 3}
    with pytest.raises(UserError, match="started with X/first") as refused:
        stage.run(config_class(**longer))
    (typed,) = re.findall(r"write init_from=(\S+)", str(refused.value))
    assert stage.run(config_class(**{**longer, "init_from": typed}))


def test_a_base_that_was_replaced_in_place_is_refused(
    fixtures: StageFixtures, linked: Path
) -> None:
    settings = {
        **fixtures.settings("conversation", Path("run"), **SHORT, lora=LORA), "init_from": linked,
    }  # fmt: skip
    sft.run(SftConfig(**settings))
    adapter = Path("run/checkpoints/latest")
    expected = load_merged(adapter).lm_head.weight
    other_weights(Path("X/first"), Path("X/first"))
    with pytest.raises(UserError, match="its content was replaced: restore it"):
        sft.run(SftConfig(**{**settings, "resume": True, "max_steps": 3}))
    with pytest.raises(UserError, match="trained on other weights") as refused:
        load_merged(adapter)
    (typed,) = re.findall(r"mengya merge (.*)$", str(refused.value))
    checkpoint, *values = typed.replace("FOLDER", "merged").split()
    merge.run(load_config(MergeConfig, None, [f"checkpoint={checkpoint}", *values]))
    merged = load_file(Path("merged/model.safetensors"))["model.embed_tokens.weight"]
    torch.testing.assert_close(merged, expected * 1.1)


def test_weights_that_were_only_the_start_may_go_on(fixtures: StageFixtures, linked: Path) -> None:
    settings = {**fixtures.settings("conversation", Path("run"), **SHORT), "init_from": linked}
    sft.run(SftConfig(**settings))
    move(linked, "second")
    assert sft.run(SftConfig(**{**settings, "resume": True, "max_steps": 3}))


def test_shards_and_tokenizer_are_pinned_by_content_and_may_move(
    fixtures: StageFixtures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train, validation = fixtures.shards["text"]
    shutil.copytree(train, "here")
    settings = fixtures.settings("text", Path("run"), model={**MODEL, "vocab_size": 400}, **SHORT)
    settings["data"]["train"] = ["here"]
    pretrain.run(PretrainConfig(**settings))
    Path("here").rename("moved")
    with pytest.raises(UserError, match=r"here is not there any more.*write data\.train=PATH"):
        pretrain.run(PretrainConfig(**{**settings, "resume": True, "max_steps": 3}))
    shutil.copytree(validation, "here")
    longer = {**settings, "resume": True, "max_steps": 3}
    with pytest.raises(UserError, match=r"data\.train\.0\.path: the run started with here"):
        pretrain.run(PretrainConfig(**longer))
    assert pretrain.run(
        PretrainConfig(**{**longer, "data": {**settings["data"], "train": ["moved"]}})
    )


def test_another_objective_is_refused_and_all_else_that_changed_is_said(
    fixtures: StageFixtures, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = fixtures.settings("preference", tmp_path / "run", **SHORT)
    dpo.run(DpoConfig(**settings))
    changed = {
        **settings, "resume": True, "max_steps": 3, "beta": 0.5, "label_smoothing": 0.1,
        "sft_weight": 0.2,
    }  # fmt: skip
    with pytest.raises(UserError, match=r"beta: was 0\.1, now 0\.5") as refused:
        dpo.run(DpoConfig(**changed))
    (typed,) = re.findall(r"restore them \((.*)\)", str(refused.value))
    assert typed == "beta=0.1 label_smoothing=0.0 sft_weight=0.0"
    capfd.readouterr()
    recipe = tmp_path / "run/config.yaml"
    again = ["resume=true", "max_steps=3", "schedule.warmup_ratio=0.5", *typed.split()]
    assert dpo.run(load_config(DpoConfig, recipe, again))
    (line,) = [x for x in capfd.readouterr().err.splitlines() if "with other settings" in x]
    assert "max_steps: was 2, now 3" in line
    assert "schedule.warmup_ratio: was null, now 0.5" in line
    assert "beta" not in line and "resume:" not in line


def test_a_refusal_names_the_one_field(fixtures: StageFixtures, tmp_path: Path) -> None:
    model = {**MODEL, "vocab_size": 400}
    settings = fixtures.settings("text", tmp_path / "run", model=model, **SHORT)
    pretrain.run(PretrainConfig(**settings))
    deeper = {**settings, "resume": True, "model": {**model, "num_hidden_layers": 3}}
    with pytest.raises(UserError) as refused:
        pretrain.run(PretrainConfig(**{**deeper, "z_loss": 1e-4}))
    said = str(refused.value)
    assert "model.num_hidden_layers: was 2, now 3" in said and "z_loss: was 0.0, now 0.0001" in said
    assert "hidden_size" not in said and "{" not in said
