"""`mengya inspect`: what is learned, in a terminal and through a pipe; hostile text; a step of a run."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

import mengya
from mengya.config import load_config
from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.stages.inspect import InspectConfig, run
from mengya.stages.inspection.samples import SampleReader
from mengya.stages.inspection.terminal import print_sample
from mengya.stages.run.assemble import documents_of_step
from mengya.tokenizer.load import load_tokenizer
from tests.helpers.stage_fixtures import StageFixtures

HOSTILE = "\x1b[31m红色\x1b[0m [bold]粗[/bold] </pre><script>alert(1)</script> \u202e反\r[/red"


def config(shards: Path, fixtures: StageFixtures, *more: str) -> InspectConfig:
    given = [f"shards={shards}", f"tokenizer={fixtures.tokenizer}", *more]
    return load_config(InspectConfig, None, given)


def test_a_conversation_through_a_pipe(
    fixtures: StageFixtures, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config(fixtures.shards["conversation"][0], fixtures, "sample=0"))
    out = capsys.readouterr().out
    assert "assistant\n[[learned]]小满在第0天买了1个苹果，小满很高兴。<|im_end|>[[/learned]]" in out
    assert "90 conversations" in out and "\x1b" not in out and "0 duplicates" in out
    assert "learned answers of a conversation" in out and "█" in out


@pytest.mark.parametrize("no_color", [False, True])
def test_colour_where_a_terminal_has_it(
    no_color: bool, fixtures: StageFixtures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    shards = TokenShards(fixtures.shards["conversation"][0])
    (sample,) = SampleReader(fixtures.tokenizer, 300).samples(shards, 0)
    file = io.StringIO()
    print_sample(Console(file=file, force_terminal=True, width=100), sample, ids=False)
    assert ("[[learned]]" in file.getvalue()) == no_color
    assert ("\x1b[32m小满在第" in file.getvalue()) != no_color


def test_ids_and_labels(fixtures: StageFixtures, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fixtures.shards["conversation"][0]
    run(config(folder, fixtures, "sample=1", "ids=true", "max_tokens=500"))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    shown = [
        (int(r[1]), int(r[2])) for r in rows if len(r) >= 3 and r[0].isdigit() and r[1].isdigit()
    ]
    shards = TokenShards(folder)
    ids, mask = shards.tokens(1).tolist(), shards.loss_mask(1).tolist()
    assert shown == [(i, i if m else -100) for i, m in zip(ids, mask, strict=True)]


def test_pairs_and_texts(fixtures: StageFixtures, capsys: pytest.CaptureFixture[str]) -> None:
    run(config(fixtures.shards["preference"][0], fixtures, "sample=3", "max_tokens=8"))
    out = capsys.readouterr().out
    assert "60 pairs" in out and "chosen side of pair 3" in out and "rejected side of pair 3" in out
    assert "tokens more; write max_tokens=" in out
    run(config(fixtures.shards["text"][0], fixtures, "samples=2", "seed=1"))
    out = capsys.readouterr().out
    assert out.count("text-train: ") == 2 and "<|endoftext|>[[learned]]" in out
    run(config(fixtures.shards["text"][0], fixtures, "samples=2", "seed=1"))
    assert capsys.readouterr().out == out


def test_hostile_text_is_shown_and_does_nothing(
    fixtures: StageFixtures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "[red]x.jsonl"
    file.write_text(json.dumps({"text": HOSTILE * 3}), "utf-8")
    made = mengya.prepare(
        out=tmp_path / "s", tokenizer=fixtures.tokenizer, sources=str(file), workers=1
    )
    capsys.readouterr()
    page = tmp_path / "page.html"
    run(config(made["train"], fixtures, f"html={page}"))
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\u202e" not in out and "\r" not in out
    assert "[bold]粗[/bold]" in out and "[red]x" in out
    html = page.read_text("utf-8")
    assert "<script>alert" not in html and "&lt;script&gt;alert(1)" in html and "\x1b" not in html
    with pytest.raises(UserError, match=r"html=.* exists; write overwrite=true"):
        run(config(made["train"], fixtures, f"html={page}"))
    run(config(made["train"], fixtures, f"html={page}", "overwrite=true"))


def test_the_documents_of_a_step(
    fixtures: StageFixtures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = fixtures.settings("conversation", tmp_path / "run", max_steps=3)
    assert mengya.sft(**settings).run_dir == tmp_path / "run"
    capsys.readouterr()
    run(InspectConfig(run=tmp_path / "run", step=3))
    out = capsys.readouterr().out
    from mengya.stages.sft import SftConfig

    trained = load_config(SftConfig, tmp_path / "run" / "config.yaml")
    expected = list(
        documents_of_step(trained, fixtures.base, ("conversation",), 2, Console(file=io.StringIO()))
    )
    assert len(expected) >= 4
    assert out.count("conversation ") == len(expected)
    for one in expected:
        assert f"conversation {one['document']} of " in out
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    run(InspectConfig(run=tmp_path / "run", step=3))  # nothing of the model is needed


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["samples=1"], "name one of both"),
        (["shards=x"], "write tokenizer=FOLDER"),
        (["run=x"], "write run=RUN_DIR step=N"),
        (["shards=x", "run=y", "step=1"], "name one of both"),
        (["run=x", "step=1", "tokenizer=y"], "leave tokenizer out"),
        (["run=x", "step=1", "samples=1", "seed=2"], "leave samples, seed out"),
    ],
)
def test_what_to_look_at_is_asked_for(given: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_config(InspectConfig, None, given)


def test_what_is_not_there(fixtures: StageFixtures, tmp_path: Path, tokenizer_folder: Path) -> None:
    folder = fixtures.shards["conversation"][0]
    with pytest.raises(UserError, match="write sample=89 or less"):
        run(config(folder, fixtures, "sample=90"))
    other = load_config(InspectConfig, None, [f"shards={folder}", f"tokenizer={tokenizer_folder}"])
    assert load_tokenizer(tokenizer_folder)
    with pytest.raises(UserError, match="was made with the tokenizer"):
        run(other)
    with pytest.raises(UserError, match=r"no config\.yaml"):
        run(InspectConfig(run=tmp_path, step=1))
