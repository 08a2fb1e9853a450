"""Losses stay readable: above the bar on a terminal, and all of them in log.txt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mengya.training.telemetry.progress import ProgressBar


@pytest.mark.parametrize("terminal", [True, False])
def test_losses_stay_on_the_screen_and_in_the_log(
    terminal: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
    log = tmp_path / "log.txt"
    with ProgressBar("sft", 400, shown=True, log=log) as progress:
        for step in range(1, 401):
            progress.update(step, {"loss": 400 / step, "tokens_per_second": 10.0})
        progress.say("step 400 validation: loss 1.0")
    progress.warn("a spike [3]")
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capfd.readouterr().err)
    lines = re.findall(r"sft step (\d+)/400  loss [\d.]+  10 tok/s", shown)
    assert len(lines) == (41 if terminal else 400) and lines[-1] == "400"
    kept = log.read_text(encoding="utf-8").splitlines()
    assert len(kept) == 402
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  sft step 2/400  loss 200\.000  10 tok/s", kept[1]
    )
    assert kept[-1].endswith("warning: a spike [3]")


def test_the_log_is_continued_says_why_a_run_ended_and_never_ends_one(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("earlier\n")
    with pytest.raises(KeyError), ProgressBar("sft", 1, shown=False, log=log):
        raise KeyError("gone")
    assert log.read_text().startswith("earlier\n")
    assert log.read_text().endswith("ended by KeyError: 'gone'\n")
    ProgressBar("sft", 1, shown=False, log=tmp_path).say("a folder cannot be appended to")
