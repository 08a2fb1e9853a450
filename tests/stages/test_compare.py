"""`mengya compare`: real runs over one another and over the reference curves, on a page and in words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mengya.config import load_config
from mengya.errors import UserError
from mengya.measured.measurement import Measurement
from mengya.runtime.jsonl import json_line, read_steps
from mengya.stages import compare, evaluate, pretrain, sft
from mengya.stages.compare import CompareConfig, Compared, figures_table
from mengya.stages.evaluate import EvaluateConfig
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.sft import SftConfig
from tests.helpers.stage_fixtures import MODEL, StageFixtures

LOOP: dict[str, Any] = {"log_every": 1, "eval_every": 2, "save_every": 2, "sample_every": 9}


@pytest.fixture(scope="module")
def runs(fixtures: StageFixtures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """one/pretrain logs points on the reference text, two/pretrain does not, sft began from a model."""
    root = tmp_path_factory.mktemp("runs")
    more: dict[str, Any] = {"model": {**MODEL, "vocab_size": 400}, "max_steps": 4}
    logged: dict[str, Any] = {**LOOP, "yardsticks": ["reference_text"], "yardstick_every": 2}
    for name, loop, seed in (("one/pretrain", logged, 0), ("two/pretrain", LOOP, 1)):
        settings = fixtures.settings("text", root / name, **more, seed=seed, loop=loop)
        pretrain.run(PretrainConfig(**settings))
    settings = fixtures.settings("conversation", root / "sft", max_steps=2, loop=LOOP)
    sft.run(SftConfig(**settings))
    for name in ("one/pretrain", "two/pretrain"):
        typed = [
            f"checkpoint={root / name}",
            "yardsticks=reference_text",
            "yardstick.limit=2",
            "device=cpu",
        ]
        evaluate.run(load_config(EvaluateConfig, None, typed))
    return root


def later(run_dir: Path, tokens: int, bits: float) -> None:
    """Give the points of a run other tokens and bits, as a long run would have."""
    lines = list(read_steps(run_dir / "metrics.jsonl"))
    for line in lines:
        line["tokens"] = tokens * line["step"] // 4
        if "yardstick/reference_text" in line:
            line["yardstick/reference_text"] = bits
    (run_dir / "metrics.jsonl").write_text("".join(map(json_line, lines)), encoding="utf-8")


def compared(*words: object) -> None:
    compare.run(load_config(CompareConfig, None, [str(word) for word in words]))


def test_two_runs_on_one_page(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    names = json.dumps([str(runs / "one/pretrain"), str(runs / "two/pretrain")])
    compared(f"runs={names}", f"out={out}", "device=cpu")
    shown = capsys.readouterr()
    printed = " ".join(shown.out.split())
    assert "too early to say" in printed and "│ law │" in printed  # below reference_text
    assert "one/pretrain" in printed and "two/pretrain" in printed
    assert "bits_per_byte" not in printed
    assert "two/pretrain: measuring its checkpoints" in " ".join(shown.err.split())
    page = out.read_text("utf-8")
    header, *rows = re.findall(
        r"<tr>(.*?)</tr>", page.split("<h2>Figures</h2>")[1].split("</table>")[0]
    )
    assert re.findall(r"<th>(.*?)</th>", header) == ["figure", "one/pretrain", "two/pretrain", "p"]
    cells = {row[0]: row[1:] for row in (re.findall(r"<td>(.*?)</td>", r) for r in rows)}
    assert (
        0 < float(cells["reference_text"][2]) <= 1
        and cells["reference_text/bits_per_byte"][2] == ""
    )
    for title in (
        "Is my loss normal?",
        "Curves over one another",
        "bits per character, reference text",
    ):
        assert title in page
    assert page.count("<h3>Samples</h3>") == 0 and page.count("config.yaml</summary>") == 2
    assert not re.search(r'(src|href)="https?://', page)


def test_a_run_that_lags_gets_causes_and_commands(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later(runs / "one/pretrain", 800_000, 9.9)
    compared(f"runs={runs / 'one/pretrain'}", f"out={tmp_path / 'c.html'}", "device=cpu")
    printed = " ".join(capsys.readouterr().out.split())
    assert "behind; the reference was there before its first measurement" in printed
    shards = re.search(r"wrong labels: mengya inspect (\S+) tokenizer=(\S+):", printed)
    assert shards is not None and Path(shards[1]).is_dir() and Path(shards[2]).is_dir()
    page = (tmp_path / "c.html").read_text("utf-8")
    assert "Usual causes" in page and "mengya plan" in page


def test_a_run_from_a_model_is_compared_without_a_place(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compared(f"runs={runs / 'sft'}", f"out={tmp_path / 'c.html'}", "device=cpu")
    printed = " ".join(capsys.readouterr().out.split())
    assert "no figures: `mengya evaluate" in printed
    assert "sft: not laid over the reference curves" in printed
    assert "Curves over one another" in (tmp_path / "c.html").read_text("utf-8")
    assert "Is my loss normal?" not in (tmp_path / "c.html").read_text("utf-8")


def test_a_checkpoint_alone_and_wrong_paths(
    runs: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compared(f"runs={checkpoint}", f"out={tmp_path / 'c.html'}", "device=cpu")
    assert (tmp_path / "c.html").is_file()
    with pytest.raises(UserError, match="does not exist"):
        compared(f"runs={tmp_path / 'nothing'}")
    with pytest.raises(UserError, match="given twice"):
        compared(f"runs={json.dumps([str(checkpoint)] * 2)}")
    with pytest.raises(UserError, match=r"is a folder; write the name of a page, .*compare\.html"):
        compared(f"runs={checkpoint}", f"out={tmp_path}")


def test_the_report_of_a_run_says_where_it_stands(fixtures: StageFixtures, tmp_path: Path) -> None:
    more: dict[str, Any] = {"model": {**MODEL, "vocab_size": 400}, "max_steps": 2}
    pages = {}
    for limit in (None, 1):
        loop = {**LOOP, "yardsticks": ["reference_text"], "yardstick_limit": limit}
        run_dir = tmp_path / str(limit)
        settings = fixtures.settings("text", run_dir, **more, loop=loop)
        pretrain.run(PretrainConfig(**settings))
        pages[limit] = (run_dir / "report.html").read_text("utf-8")
    for page in pages.values():
        assert "reference_text (all yardsticks:" in page and "reference_text by part" in page
    assert "Is my loss normal?" in pages[None] and "too early to say" in pages[None]
    assert (
        "Is my loss normal?" not in pages[1]
    )  # a part of the text is no place among the references


def test_a_figure_that_does_not_apply_is_not_shown_as_zero() -> None:
    figures = {
        "stop_in_time": Measurement.not_applicable("stop_in_time", "share", "higher", "base")
    }
    one = Compared("base", Path("base"), [], figures, {}, None)
    assert figures_table([one]) == (["figure", "base"], [["stop_in_time", "-"]])


def test_the_parts_of_a_yardstick_stand_together_whoever_has_them() -> None:
    share = (0.5, (0.4, 0.6), 9, "share", "higher")
    models = []
    for name, names in {
        "base": ("loops", "pairs"),
        "sft": ("loops", "pairs", "loops/greedy"),
    }.items():
        figures = {each: Measurement(each, *share) for each in names}
        models.append(Compared(name, Path(name), [], figures, {}, None))
    _, rows = figures_table(models)
    assert [row[0] for row in rows] == ["loops", "loops/greedy", "pairs"]
    assert rows[0] == ["loops", "50.0% [40.0%, 60.0%]", "50.0% [40.0%, 60.0%]", ""]
    assert figures_table(models, intervals=False)[1][0] == ["loops", "50.0%", "50.0%", ""]
