"""A run that 39e0b2c wrote and stopped at step 6 of 12 (tests/fixtures/old_run) is resumed; its model talks.

`benchmarks/old_version.py` made it and compares the bytes, on one machine; here the end may differ by the
rounding of another processor.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mengya.config import load_config
from mengya.data.shards import TokenShards
from mengya.generation.engine import generate
from mengya.generation.sampling import SamplingParams
from mengya.models.hf.open_checkpoint import open_checkpoint
from mengya.stages import pretrain
from mengya.stages.pretrain import PretrainConfig

FIXTURE = Path(__file__).parents[2] / "fixtures" / "old_run"


@pytest.fixture
def old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(FIXTURE, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_of_an_older_version_resumes_to_the_same_end(old_run: Path) -> None:
    config = load_config(PretrainConfig, old_run / "dense" / "config.yaml", ["resume=true"])
    pretrain.run(config)
    final = load_file(old_run / "dense/checkpoints/step-000012/model.safetensors")
    expected = load_file(old_run / "expected_model.safetensors")
    start = load_file(FIXTURE / "dense/checkpoints/step-000006/model.safetensors")
    assert final.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(final[name], tensor, rtol=1e-4, atol=1e-5)
    moved = max((start[name] - expected[name]).abs().max().item() for name in expected)
    assert moved > 1e-3  # six steps are no rounding


def test_shards_and_checkpoint_of_an_older_version_open(old_run: Path) -> None:
    shards = TokenShards(old_run / "shards")
    assert shards.manifest["documents"] == 400
    model, tokenizer = open_checkpoint(old_run / "dense", torch.device("cpu"), torch.float32)
    prompt = tokenizer.encode("春天")
    (reply,) = generate(model, [prompt], SamplingParams(max_new_tokens=5, temperature=0), [])
    assert len(reply) == 5
