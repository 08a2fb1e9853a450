"""`mengya quantize` writes a model card, and its folder can be pushed, after `mengya evaluate` as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from mengya.config import load_config
from mengya.export.hub.files import files_to_push
from mengya.export.hub.proven import check_proven
from mengya.stages.quantize import QuantizeConfig, run
from tests.helpers.trained_model import Trained
from tests.quantization.conftest import trained

__all__ = ["trained"]


def test_the_folder_has_a_card_and_can_be_pushed(
    trained: Trained, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a folder"
    config = {
        "checkpoint": trained.folder, "out": out, "device": "cpu", "method": "rtn", "bits": 8,
        "card": {"name": "Town", "license": "mit"},
    }  # fmt: skip
    run(load_config(QuantizeConfig, None, config))
    card = (out / "README.md").read_text("utf-8")
    assert "license: mit" in card and "# Town" in card
    assert "compressed-tensors (8 bits, rtn)" in card
    assert "pip install compressed-tensors" in card and "vllm serve" in card
    assert "layer-0" not in card  # of the work, which is gone
    shown = capfd.readouterr().err
    assert f"mengya chat '{out}'" in shown
    assert "Decompressing" not in shown and "Dispatching" not in shown
    assert all(len(line) <= 80 for line in shown.splitlines() if str(out) not in line)
    (out / "evaluation.json").write_text("{}", "utf-8")
    (out / "evaluation_items").mkdir()
    (out / "evaluation_items/loops.jsonl").write_text("{}\n", "utf-8")
    check_proven(out)
    names = [file.name for file in files_to_push(out)]
    assert "README.md" in names and not any("evaluation" in name for name in names)
