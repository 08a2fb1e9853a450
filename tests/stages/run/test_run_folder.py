"""One writer at a time, and nobody's files lost: run folders, checkpoints, merged and extended models."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mengya.config import load_config, save_config
from mengya.errors import UserError
from mengya.stages import dpo, extend, merge, pretrain, sft
from mengya.stages.dpo import DpoConfig
from mengya.stages.extend import ExtendConfig
from mengya.stages.merge import MergeConfig
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.sft import SftConfig
from tests.helpers.stage_fixtures import MODEL, StageFixtures

SHAPE: dict[str, Any] = {"model": {**MODEL, "vocab_size": 400}}
SHORT: dict[str, Any] = {
    "max_steps": 2, "loop": {"log_every": 1, "eval_every": 2, "save_every": 1, "sample_every": 2},
}  # fmt: skip
VERBS = [
    (pretrain, PretrainConfig, "text", SHAPE),
    (sft, SftConfig, "conversation", {}),
    (dpo, DpoConfig, "preference", {}),
]


@pytest.mark.parametrize(("stage", "config_class", "kind", "more"), VERBS)
def test_a_run_writes_over_nothing_that_is_not_its_own(
    fixtures: StageFixtures,
    tmp_path: Path,
    stage: Any,
    config_class: Any,
    kind: str,
    more: dict[str, Any],
) -> None:
    run_dir = tmp_path / "run"
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "checkpoints/thesis.txt").write_text("years of work")
    (run_dir / "config.yaml").write_text("of: another program")
    settings = fixtures.settings(kind, run_dir, **more, **SHORT)
    with pytest.raises(UserError, match=r"checkpoints, config\.yaml") as refused:
        stage.run(config_class(**settings))
    assert (run_dir / "config.yaml").read_text() == "of: another program"
    assert (run_dir / "checkpoints/thesis.txt").read_text() == "years of work"
    other = Path(re.findall(r"run_dir=(\S+)", str(refused.value))[-1])
    other.mkdir()
    (other / "train.log").write_text("what nohup wrote")
    assert stage.run(config_class(**{**settings, "run_dir": other}))
    assert (other / "train.log").read_text() == "what nohup wrote"
    assert not (other / ".mengya-lock").exists()
    (other / ".mengya.json").unlink()  # as the version before left it
    assert stage.run(config_class(**{**settings, "run_dir": other, "resume": True, "max_steps": 3}))


def test_a_run_inside_its_shards_is_refused_and_leaves_no_trace(fixtures: StageFixtures) -> None:
    shards = fixtures.shards["text"][0]
    before = sorted(shards.rglob("*"))
    with pytest.raises(UserError, match="inside the source"):
        pretrain.run(PretrainConfig(**fixtures.settings("text", shards / "run", **SHAPE)))
    assert sorted(shards.rglob("*")) == before


def test_a_second_run_in_the_same_folder_is_refused_and_a_killed_one_is_resumed(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    loop = {"log_every": 1, "eval_every": 10**6, "save_every": 5, "sample_every": 10**6}
    settings = {**fixtures.settings("text", tmp_path / "run", **SHAPE), "loop": loop}
    save_config(PretrainConfig(**{**settings, "max_steps": 10**6}), tmp_path / "run.yaml")
    command = [sys.executable, "-m", "mengya", "pretrain", str(tmp_path / "run.yaml")]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run/checkpoints/latest").exists():
            assert time.monotonic() < deadline and first.poll() is None
            time.sleep(0.05)
        for more in ([], ["resume=true"]):
            second = subprocess.run([*command, *more], capture_output=True, text=True)
            assert second.returncode == 2
            assert f"process {first.pid} on " in " ".join(second.stderr.split())
    finally:
        first.kill()
        first.wait()
    assert (tmp_path / "run/.mengya-lock").is_file()
    state = tmp_path / "run/checkpoints/latest/trainer/state.json"
    reached = PretrainConfig(**settings).loop.save_every + int(
        re.findall(r'"step": (\d+)', state.read_text())[0]
    )
    third = subprocess.run(
        [*command, "resume=true", f"max_steps={reached}"], capture_output=True, text=True
    )
    said = " ".join(third.stderr.split())
    assert third.returncode == 0, said
    assert f"process {first.pid} on " in said and "taken over" in said
    assert not (tmp_path / "run/.mengya-lock").exists()


def test_what_somebody_put_into_a_checkpoint_outlives_it(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    settings = fixtures.settings("text", tmp_path / "run", **SHAPE, **SHORT)
    settings["loop"]["keep_last"] = 1
    pretrain.run(PretrainConfig(**settings))
    folder = tmp_path / "run/checkpoints"
    old = (folder / "latest").resolve()
    (old / "notes").mkdir()
    (old / "notes/thesis.txt").write_text("years of work")
    (old / "evaluation.json").write_text("{}")  # `mengya evaluate` wrote it: ours
    (old / "evaluation_items").mkdir()
    (old / "evaluation_items/loops.jsonl").write_text("{}\n")
    pretrain.run(PretrainConfig(**{**settings, "resume": True, "max_steps": 6}))
    kept = folder / f"left-{old.name}"
    assert [p.name for p in kept.rglob("*") if p.is_file()] == ["thesis.txt"]
    assert (kept / "notes/thesis.txt").read_text() == "years of work"
    assert not old.exists() and not list(folder.glob(".*"))


def extended(fixtures: StageFixtures, out: Path, *more: str) -> None:
    values = [f"checkpoint={fixtures.base}", f"out={out}", 'tokens=["心肌梗死"]', *more]
    extend.run(load_config(ExtendConfig, None, values))


@pytest.fixture(scope="module")
def adapter(fixtures: StageFixtures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("adapter") / "run"
    lora = {"rank": 2, "alpha": 4}
    sft.run(SftConfig(**fixtures.settings("conversation", run_dir, lora=lora, **SHORT)))
    return run_dir / "checkpoints/latest"


@pytest.mark.parametrize("verb", ["merge", "extend"])
def test_a_model_folder_is_replaced_only_when_it_is_all_ours(
    fixtures: StageFixtures, adapter: Path, tmp_path: Path, verb: str
) -> None:
    def write(out: Path, *more: str) -> None:
        if verb == "extend":
            return extended(fixtures, out, *more)
        values = [f"checkpoint={adapter}", f"out={out}", *more]
        return merge.run(load_config(MergeConfig, None, values))

    out = tmp_path / "out"
    write(out)
    model = out / "model.safetensors"
    first = model.stat().st_ino
    with pytest.raises(UserError, match="overwrite=true"):
        write(out)
    (out / "evaluation.json").write_text("{}")
    (out / "evaluation_items").mkdir()
    (out / "evaluation_items/loops.jsonl").write_text("{}\n")
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"did not write: thesis\.txt") as refused:
        write(out, "overwrite=true")
    assert (out / "thesis.txt").read_text() == "years of work" and model.stat().st_ino == first
    write(Path(re.findall(r"out=(\S+)", str(refused.value))[-1]))
    (out / "thesis.txt").unlink()
    write(out, "overwrite=true")
    assert model.stat().st_ino != first
    (out / ".mengya.json").unlink()  # a model from anywhere
    with pytest.raises(UserError, match="did not write"):
        write(out, "overwrite=true")
    source = adapter if verb == "merge" else fixtures.base
    for inside in (source, source.resolve().parent):
        with pytest.raises(UserError, match="is read, and inside out="):
            write(inside, "overwrite=true")
