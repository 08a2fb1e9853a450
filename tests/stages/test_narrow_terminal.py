"""Tables on 80 columns: no number is cut, no name is lost, no column is squeezed to nothing."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

from mengya.evaluation.results import Evaluation, results_table
from mengya.measured.measurement import Measurement
from mengya.stages.inspection.samples import Sample
from mengya.stages.inspection.terminal import print_sample
from mengya.stages.tokenizer.names import short_names
from mengya.stages.tokenizer.train import _table
from mengya.tokenizer.report import TokenizerReport


def shown(table: Table) -> str:
    text = io.StringIO()
    Console(file=text, width=80).print(table)
    return text.getvalue()


def test_tokenizers_of_one_name_are_told_apart() -> None:
    assert short_names(["runs/a/tokenizer", "runs/b/tokenizer"]) == ["a/tokenizer", "b/tokenizer"]
    assert short_names(["runs/a/tokenizer", "models/qwen"]) == ["tokenizer", "qwen"]
    assert short_names(["x"]) == ["x"]
    report = TokenizerReport(151_669, 10, 900_000, 500_000, 1.512, 4.2, 1.0, 0.0, 0.125, 2048, 0.5)
    text = shown(
        _table({"runs/a/tokenizer": report, "models/Qwen3-0.6B-Base-of-a-long-name": report})
    )
    assert "…" not in text and text.count("151,669") == 2 and text.count("12.5%") == 2
    assert "\n  tokenizer  " in shown(_table({"runs/my/tokenizer": report}))


def test_the_heading_of_a_sample_is_never_cut() -> None:
    title = "conversation 164 of runs/my/shards/identity/train, from conversations"
    sample = Sample(title, 136, 84, [], [])
    text = io.StringIO()
    print_sample(Console(file=text, width=80), sample, ids=False)
    assert f"{title}: 136 tokens, 84 learned\n" in text.getvalue()


def test_the_parts_of_a_yardstick_stand_below_it_on_one_line_each() -> None:
    names = ["pairs", "pairs/collocation_adjective", "reference_text/bits_per_byte/encyclopedia"]
    share = (0.5, (0.4, 0.6), 1, "share", "higher")
    figures = [Measurement(name, *share) for name in names]
    lines = shown(results_table(Evaluation("runs/x", yardsticks={"pairs": figures}))).splitlines()
    assert "│ pairs" in lines[4] and "│   collocation_adjective " in lines[5]
    assert "1 item " in lines[5] and max(map(len, lines)) <= 80
    parts = ["a", "a_b", "a/short", "a_b/short"]
    figures = [Measurement(name, *share) for name in parts]
    text = shown(results_table(Evaluation("runs/x", yardsticks={"a": figures})))
    assert [line[2:10].rstrip() for line in text.splitlines()[4:-1]] == [
        "a",
        "  short",
        "a_b",
        "  short",
    ]
    long = [Measurement("domain/" + "x" * 60, *share)]
    text = shown(results_table(Evaluation("runs/x", yardsticks={"bits_per_char": long})))
    assert text.count("x") == 60 + 1  # the name folded, and the title
