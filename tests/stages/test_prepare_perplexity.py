"""The filter of `mengya prepare` by the perplexity of a model of one's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mengya.config import load_config
from mengya.errors import UserError
from mengya.evaluation.long_context.head_scores import HeadScores
from mengya.stages.prepare import PrepareConfig, run
from tests.helpers.json_lines import write_lines


def prepare(folder: Path, tokenizer: Path, out: str = "out", **settings: Any) -> dict[str, Any]:
    values = {"out": str(folder / out), "tokenizer": str(tokenizer), "workers": 1}
    run(PrepareConfig.model_validate({**values, "sources": str(folder / "a.jsonl"), **settings}))
    return json.loads((folder / out / "data_report.json").read_text(encoding="utf-8"))


def test_what_a_model_finds_too_hard_or_too_easy_is_dropped(
    tmp_path: Path, checkpoint: Path, tokenizer_folder: Path, texts: list[str]
) -> None:
    scores = sorted(zip(HeadScores(checkpoint, 64, "cpu")()(texts), texts, strict=True))
    low, high = ((scores[i][0] + scores[i + 1][0]) / 2 for i in (0, len(scores) - 2))
    write_lines(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    filters = {
        "perplexity": {
            "checkpoint": str(checkpoint),
            "min_bits_per_char": low,
            "max_bits_per_char": high,
            "max_tokens": 64,
            "device": "cpu",
        }
    }
    settings = {"filters": filters, "clean": {"min_characters": 1}}
    report = prepare(tmp_path, tokenizer_folder, **settings)
    dropped = report["sources"][0]["dropped"]
    assert dropped["low_perplexity"]["examples"][0]["text"] == scores[0][1].strip()[:200]
    assert dropped["high_perplexity"]["examples"][0]["text"] == scores[-1][1].strip()[:200]
    assert report["sources"][0]["kept"]["samples"] == len(texts) - 2


def test_the_weights_count_by_content(
    tmp_path: Path, checkpoint: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lines(tmp_path / "a.jsonl", [{"text": "小明每天早上七点起床，八点去学校。"}])
    moved = shutil.copytree(checkpoint, tmp_path / "moved")

    def with_model(folder: Path) -> dict[str, Any]:
        bounds = {"checkpoint": str(folder), "max_bits_per_char": 100, "device": "cpu"}
        return prepare(tmp_path, tokenizer_folder, filters={"perplexity": bounds})

    with_model(checkpoint)
    capsys.readouterr()
    with_model(moved)
    assert "up to date" in capsys.readouterr().err
    weights = moved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match=r"filters.perplexity.checkpoint_sha256"):
        with_model(moved)
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        with_model(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ("", "nothing would be dropped: give filters.perplexity.max_bits_per_char"),
        ("min_bits_per_char: 3, max_bits_per_char: 2", "must be below max_bits_per_char 2"),
    ],
)
def test_bounds_that_cannot_work_are_refused(bounds: str, expected: str) -> None:
    given = f"filters.perplexity={{checkpoint: x, {bounds}}}"
    with pytest.raises(UserError, match=expected):
        load_config(PrepareConfig, None, ["out=o", "tokenizer=t", "sources=s", given])
