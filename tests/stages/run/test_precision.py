"""precision=fp8: what is refused before any work starts, and several processes. On a GPU: test_cuda.py."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest

from mengya.errors import UserError
from mengya.models.fp8_layers import use_fp8
from mengya.stages.dpo import DpoConfig
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.pretrain import run as pretrain
from mengya.stages.run import assemble
from tests.helpers.several_processes import losses, make_config, recipe, run_together
from tests.helpers.stage_fixtures import StageFixtures


def test_a_cpu_is_refused_with_what_to_write(tmp_path: Path, fixtures: StageFixtures) -> None:
    settings = fixtures.settings("text", tmp_path / "run", precision="fp8", init_from=fixtures.base)
    with pytest.raises(
        UserError, match="needs an NVIDIA GPU, and the device is cpu; write precision=bf16"
    ):
        pretrain(PretrainConfig.model_validate(settings))


def test_dpo_and_deepspeed_refuse(tmp_path: Path, fixtures: StageFixtures) -> None:
    settings = fixtures.settings("preference", tmp_path / "run", precision="fp8")
    with pytest.raises(ValueError, match="would compare the policy with a reference"):
        DpoConfig.model_validate(settings)
    settings = fixtures.settings(
        "text", tmp_path / "run", precision="fp8", init_from=fixtures.base,
        strategy={"name": "deepspeed", "deepspeed_config": "zero2.json"},
    )  # fmt: skip
    with pytest.raises(ValueError, match="precision=fp8 runs with strategy"):
        PretrainConfig.model_validate(settings)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path, fixtures: StageFixtures) -> None:
    def config(name: str, micro: int, strategy: str = "auto") -> PretrainConfig:
        engine = {"name": strategy}
        made = make_config(
            "dense", fixtures, tmp_path / name, micro, precision="fp8", strategy=engine
        )
        assert isinstance(made, PretrainConfig)
        return made

    with patch.object(assemble, "use_fp8", partial(use_fp8, reference=True)):
        pretrain(config("one", micro=8))
    run_together(2, [recipe("pretrain", config(name, 2, name)) for name in ("ddp", "fsdp")])
    expected = losses(tmp_path / "one")
    assert losses(tmp_path / "ddp") == pytest.approx(expected, rel=1e-3)
    assert losses(tmp_path / "fsdp") == pytest.approx(
        expected, rel=5e-3
    )  # weights are bf16 at first
