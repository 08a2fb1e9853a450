"""Filters in `mengya prepare`: what they drop and edit is counted and shown; other settings are refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mengya.config import load_config
from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.stages.prepare import PrepareConfig, run
from mengya.tokenizer.load import load_tokenizer
from tests.helpers.json_lines import write_lines

Prepare = Callable[..., dict[str, Any]]
POEM = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"
NEWS = "小镇的集市今天开张，老王卖出了四十斤鱼，女儿在旁边看书。"


@pytest.fixture
def prepare(tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Runs prepare in tmp_path on records, and gives data_report.json."""
    monkeypatch.chdir(tmp_path)

    def call(records: list[Any], out: str = "out", **settings: Any) -> dict[str, Any]:
        write_lines(tmp_path / "a.jsonl", records)
        values = {
            "out": out,
            "tokenizer": str(tokenizer_folder),
            "sources": "a.jsonl",
            "workers": 1,
        }
        run(PrepareConfig.model_validate({**values, **settings}))
        return json.loads((tmp_path / out / "data_report.json").read_text(encoding="utf-8"))

    return call


def kept_texts(out: Path, tokenizer_folder: Path) -> list[str]:
    shards, tokenizer = TokenShards(out), load_tokenizer(tokenizer_folder)
    texts = (tokenizer.decode(shards.tokens(i)[1:-1].tolist()) for i in range(len(shards)))
    return [str(text) for text in texts]


def test_drops_and_edits_are_counted_in_samples_and_characters(
    prepare: Prepare, tmp_path: Path, tokenizer_folder: Path
) -> None:
    english = "nothing of this is written in Chinese at all"
    records = [NEWS, POEM, english, english + "!", f"电话13812345678。{NEWS}", f" {POEM}"]
    report = prepare([{"text": text} for text in records], filters={"scripts": {}, "pii": {}})
    source = report["sources"][0]
    assert source["read"] == 6
    assert source["dropped"] == {
        "duplicate": {
            "samples": 1,
            "characters": len(POEM),
            "examples": [{"file": "a.jsonl", "line": 6, "text": POEM}],
        },
        "few_han": {
            "samples": 2,
            "characters": 2 * len(english) + 1,
            "examples": source["dropped"]["few_han"]["examples"],
        },
    }
    assert {e["line"] for e in source["dropped"]["few_han"]["examples"]} == {3, 4}
    assert source["edits"]["pii"]["samples"] == 1
    edit = source["edits"]["pii"]["examples"][0]
    assert "13812345678" in edit["before"] and "13812345678" not in edit["text"]
    kept = kept_texts(tmp_path / "out", tokenizer_folder)
    assert kept == [NEWS, POEM, edit["text"]]
    assert source["kept"]["characters"] == sum(map(len, kept))
    assert sum(report["histograms"]["scripts"].values()) <= sum(map(len, kept))
    assert sum(bin_["samples"] for bin_ in report["histograms"]["characters"]) == 3


def test_chats_are_edited_in_every_turn_and_judged_without_the_system_turn(
    prepare: Prepare, tmp_path: Path, tokenizer_folder: Path
) -> None:
    def chat(system: str, user: str, answer: str) -> dict[str, Any]:
        roles = ("system", "user", "assistant")
        turns = zip(roles, (system, user, answer), strict=True)
        return {"messages": [{"role": role, "content": text} for role, text in turns]}

    english = "You are a helpful assistant, and you answer every question in short sentences."
    records = [
        chat(english, "鱼多少钱？", "四十块一斤，我的电话是13812345678。"),
        chat("用中文回答", "What does the fish cost?", "It costs forty yuan a pound."),
    ]
    report = prepare(records, kind="conversation", filters={"scripts": {}, "pii": {}})
    source = report["sources"][0]
    assert source["dropped"]["few_han"]["examples"][0]["text"].startswith(
        "system: 用中文回答\nuser: What"
    )
    assert source["edits"]["pii"]["samples"] == 1
    assert source["kept"]["samples"] == 1
    assert [bin_["samples"] for bin_ in report["histograms"]["turns"]] == [1]
    ids = TokenShards(tmp_path / "out").tokens(0).tolist()
    text = load_tokenizer(tokenizer_folder).decode(ids)
    assert english in text and "13812345678" not in text


def test_a_preference_pair_is_no_repetition_but_either_side_can_drop_it(prepare: Prepare) -> None:
    def pair(chosen: str, rejected: str) -> dict[str, str]:
        return {"prompt": "集市上有什么？", "chosen": chosen, "rejected": rejected}

    long = f"{NEWS}\n{POEM}"
    records = [pair(f"{long}好", f"{long}坏"), pair(long, "哈" * 400)]
    report = prepare(
        records, kind="preference", filters={"repeated_ngrams": {}, "repeated_lines": {}}
    )
    assert report["sources"][0]["kept"]["samples"] == 1
    (dropped,) = report["sources"][0]["dropped"].values()
    assert dropped["samples"] == 1 and dropped["examples"][0]["line"] == 2


MY_FILTERS = """
def no_poems(text):
    if "霜" in text:
        return "poem"
    if "出错" in text:
        raise ValueError("no such word")
    if "退出" in text:
        raise SystemExit(3)
    return 7 if "七" in text else None

class Strict:
    pass

number = 3
"""


def test_a_filter_of_ones_own(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "my_filters.py").write_text(MY_FILTERS, encoding="utf-8")
    records = [NEWS, POEM, "这里会出错的一行", "七是一个数字，不是原因", "这里会退出程序"]
    report = prepare([{"text": text} for text in records], filters={"own": "my_filters:no_poems"})
    source = report["sources"][0]
    assert source["dropped"]["poem"]["samples"] == 1 and source["kept"]["samples"] == 1
    assert [bad["line"] for bad in source["bad_lines"]] == [3, 4, 5]
    reasons = [bad["reason"] for bad in source["bad_lines"]]
    assert "my_filters:no_poems failed: ValueError: no such word" in reasons[0]
    assert "my_filters:no_poems returned 7 (int)" in reasons[1] and "None to keep" in reasons[1]
    assert "SystemExit" in reasons[2]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("my_filters:no_prose", r"no 'no_prose'; it has Strict, no_poems"),
        ("my_filters:number", r"is 3, not a function"),
        ("my_filters:Strict", r"not a function"),
        ("no_such_module:f", r"no module 'no_such_module' in .*without .py"),
        ("broken:f", r"broken cannot be imported: SyntaxError"),
        ("raises:f", r"raises cannot be imported: ZeroDivisionError"),
        ("missing_import:f", r"missing_import cannot be imported: ModuleNotFoundError.*nowhere"),
    ],
)
def test_what_is_no_filter_is_refused_by_name(
    prepare: Prepare, tmp_path: Path, path: str, expected: str
) -> None:
    (tmp_path / "my_filters.py").write_text(MY_FILTERS, encoding="utf-8")
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "raises.py").write_text("1 / 0\n")
    (tmp_path / "missing_import.py").write_text("import nowhere\n")
    with pytest.raises(UserError, match=f"filters.own {path}.*{expected}"):
        prepare([{"text": NEWS}], filters={"own": path})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "path", ["my_filters.no_poems", "my_filters.py:no_poems", "my_filters", "a/my_filters.py:f"]
)
def test_the_right_spelling_of_a_path_is_named_and_accepted(path: str) -> None:
    given = ["out=o", "tokenizer=t", "sources=s"]
    with pytest.raises(UserError, match=r"MODULE:FUNCTION; write \S+:\w+") as error:
        load_config(PrepareConfig, None, [*given, f"filters.own={path}"])
    remedy = str(error.value).split("write ")[1].split()[0]
    load_config(PrepareConfig, None, [*given, f"filters.own={remedy}"])


def test_a_changed_function_makes_the_folder_out_of_date_and_is_read_again(
    prepare: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "changing.py"
    file.write_text("def f(text):\n    return None\n")
    records = [{"text": NEWS}, {"text": POEM}]
    assert prepare(records, filters={"own": "changing:f"})["sources"][0]["kept"]["samples"] == 2
    prepare(records, filters={"own": "changing:f"})
    assert "up to date" in capsys.readouterr().err
    file.write_text("def f(text):\n    return 'poem' if '霜' in text else None\n")
    with pytest.raises(UserError, match=r"filters.own.0: 'changing:f of SHA-256"):
        prepare(records, filters={"own": "changing:f"})
    report = prepare(records, filters={"own": "changing:f"}, overwrite=True)
    assert report["sources"][0]["dropped"]["poem"]["samples"] == 1


def test_default_filters_leave_a_folder_up_to_date_and_other_ones_do_not(
    prepare: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [{"text": NEWS}]
    prepare(records)
    request = json.loads((tmp_path / "out/prepare.json").read_text())["request"]
    assert not request.keys() & {"filters", "fill", "placeholders", "report"}
    capsys.readouterr()
    prepare(records, filters={"base": "none"}, placeholders="warn", report=True)
    assert "up to date" in capsys.readouterr().err
    with pytest.raises(
        UserError, match=r"other settings(.|\n)*filters: None -> \{'base': 'standard'"
    ):
        prepare(records, filters="standard")
    with pytest.raises(UserError, match=r"other settings(.|\n)*fill: None"):
        prepare(records, fill={"集市": "市场"})
    prepare(records, filters="standard", overwrite=True)
    with pytest.raises(UserError, match=r"filters.length.min_letters: \d+ -> 99"):
        prepare(records, filters={"base": "standard", "length": {"min_letters": 99}})


IDENTITY = [
    {"prompt": "你是谁？", "response": "我是<NAME>，由<AUTHOR>开发。"},
    {"prompt": "你叫什么名字？", "response": "我叫<NAME>。"},
    {"prompt": "一加一等于几？", "response": "等于二。"},
]


def test_unfilled_placeholders_are_counted_filled_and_dropped(
    prepare: Prepare, tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = prepare(IDENTITY, kind="conversation")
    warned = " ".join(capsys.readouterr().err.split())
    assert "a: of the learned answers 2 hold <NAME>, 1 hold <AUTHOR>" in warned
    assert """fill='{"<NAME>": "...", "<AUTHOR>": "..."}'""" in warned
    assert [(p["placeholder"], p["samples"]) for p in report["placeholders"]] == [
        ("<NAME>", 2),
        ("<AUTHOR>", 1),
    ]
    filled = prepare(
        IDENTITY, "filled", kind="conversation", fill={"<NAME>": "小雅", "<AUTHOR>": "李明"}
    )
    assert "hold" not in capsys.readouterr().err and "placeholders" not in filled
    ids = TokenShards(tmp_path / "filled").tokens(0).tolist()
    assert "我是小雅，由李明开发。" in str(load_tokenizer(tokenizer_folder).decode(ids))
    dropped = prepare(IDENTITY, "dropped", kind="conversation", placeholders="drop")
    assert dropped["sources"][0]["dropped"]["placeholder"]["samples"] == 2
    assert "nobody filled" not in capsys.readouterr().err.lower()


def test_placeholders_count_only_where_they_are_learned(prepare: Prepare) -> None:
    turns = [
        ("user", "你是谁？"),
        ("assistant", "我是<NAME>。"),
        ("user", "几点？"),
        ("assistant", "三点。"),
    ]
    messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in turns]
    messages[1]["weight"] = 0
    assert "placeholders" not in prepare([{"messages": messages}], kind="conversation")
    with pytest.raises(UserError, match="leave it out"):
        load_config(PrepareConfig, None, ["out=o", "tokenizer=t", "sources=s", "placeholders=drop"])


def test_an_edit_whose_library_is_missing_is_refused_before_anything_is_written(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opencc", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[opencc\]'"):
        prepare([{"text": NEWS}], filters={"simplify": {}})
    assert not [path for path in tmp_path.glob("*out*") if (path / "state.json").exists()]
