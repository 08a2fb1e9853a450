"""The data sets that are known by name: ours are sound, the user's win, all problems come at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mengya.config import load_config
from mengya.data.hub.reference import Reference, parse_reference
from mengya.data.hub.registry import find_corpus, load_registry
from mengya.errors import UserError
from mengya.stages.data.list import DataListConfig
from mengya.stages.data.list import run as list_all
from mengya.stages.data.show import DataShowConfig
from mengya.stages.data.show import run as show
from mengya.stages.prepare import PrepareConfig

NAMED = {  # by issue 21 and by the field
    "minimind-pretrain", "ultra-fineweb-zh", "chinese-fineweb-edu", "chinese-fineweb-edu-v2", "skypile",
    "cci2", "cci3", "cci3-hq", "mnbvc-wiki", "wikipedia-zh",
    "belle-0.5m", "belle-1m", "belle-2m", "belle-3.5m", "firefly",
    "infinity-instruct", "smoltalk-chinese", "coig", "coig-cqia", "moss-003",
    "sharegpt-zh-en-90k", "alpaca-gpt4-zh", "deepctrl", "chinese-instruct", "dpo-en-zh-20k",
    "ultrafeedback-chinese", "huozi", "medical-text", "medical-sft", "medical-reward",
    "huatuogpt", "disc-med", "disc-law", "ceval", "cmmlu",
    "seq-monkey", "wudao", "clue-corpus-small", "chinese-c4", "github-code",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_user_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("MENGYA_REGISTRY", raising=False)


def write(path: Path, **entries: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(entries, allow_unicode=True), encoding="utf-8")
    return path


MINE = {"kind": "text", "about": "Mine", "huggingface": "me/mine"}


def test_the_sets_that_the_field_uses_are_known_and_dated() -> None:
    known = load_registry()
    assert known.keys() >= NAMED
    for name, corpus in known.items():
        assert corpus.looked_at is not None, name
        claims = {"license": corpus.license, "huggingface": corpus.huggingface, "size": corpus.size}
        assert all(value for fact, value in claims.items() if fact in corpus.verified), name


def test_prepare_accepts_what_the_registry_says_of_reading() -> None:
    keys = ("format", "field", "columns", "encoding", "split_text")
    for name, corpus in load_registry().items():
        source = {key: getattr(corpus, key) for key in keys if key in corpus.model_fields_set}
        settings = {"kind": corpus.kind, "out": "x", "tokenizer": "y"}
        if corpus.kind != "exam":
            load_config(PrepareConfig, None, {**settings, "sources": [{"path": name, **source}]})


def test_a_users_entry_wins_and_the_nearest_file_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "config/mengya/data.yaml", skypile={**MINE, "about": "1"}, mine=MINE)
    assert find_corpus("skypile").about == "1" and "mine" in load_registry()
    second = write(tmp_path / "second.yaml", skypile={**MINE, "about": "2"})
    monkeypatch.setenv("MENGYA_REGISTRY", str(second))
    assert find_corpus("skypile").about == "2"
    third = write(tmp_path / "third.yaml", skypile={**MINE, "about": "3"})
    assert find_corpus("skypile", third).about == "3"
    with pytest.raises(UserError, match=r"gone.yaml does not exist"):
        load_registry(tmp_path / "gone.yaml")


def test_all_problems_of_all_files_come_at_once(tmp_path: Path) -> None:
    write(tmp_path / "config/mengya/data.yaml", one={**MINE, "lisense": "MIT"}, two=3)
    (tmp_path / "more.yaml").write_text(
        "same: {kind: text, about: a, page: b}\nsame: {kind: text, about: a, page: b}\n"
        "Bad Name: {kind: text, about: a, page: b}\nodd: {kind: txt, about: a, huggingface: me}\n"
        "nowhere: {kind: text, about: a}\n"
    )
    with pytest.raises(UserError) as caught:
        load_registry(tmp_path / "more.yaml")
    message = str(caught.value)
    for part in (
        "data.yaml:1: one: lisense: unknown key; did you mean 'license'?",
        "data.yaml:6: two must be a mapping", "more.yaml:2: same is given twice",
        "more.yaml:3: Bad Name is no name", "odd: kind: Input should be 'text'",
        "odd: huggingface: 'me' is not OWNER/NAME", "nowhere: the configuration: say where it is",
    ):  # fmt: skip
        assert part in message, message
    (tmp_path / "more.yaml").write_text("- a\n")
    with pytest.raises(UserError, match=r"more\.yaml cannot be read as YAML: it must be a mapping"):
        load_registry(tmp_path / "more.yaml")


def test_a_name_that_is_not_known_names_its_neighbours() -> None:
    with pytest.raises(UserError, match="did you mean skypile"):
        find_corpus("skypyle")
    with pytest.raises(UserError, match=r"did you mean belle-0.5m or belle-1m or belle-2m"):
        find_corpus("belle")


def test_the_table_fits_a_terminal_and_can_be_searched(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = list_all(load_config(DataListConfig, None, {}))
    lines = capsys.readouterr().out.splitlines()
    assert len(shown) == len(load_registry()) and max(map(len, lines)) <= 80
    assert all(any(line.split()[:1] == [name] for line in lines) for name in shown)
    found = list_all(load_config(DataListConfig, None, {"kind": "conversation", "search": "BELLE"}))
    assert len(found) >= 6 and all("belle" in name for name in found)
    with pytest.raises(UserError, match=r"none of .* fits kind=exam search='belle'"):
        list_all(load_config(DataListConfig, None, {"kind": "exam", "search": "belle"}))


def test_show_says_what_was_not_seen(capsys: pytest.CaptureFixture[str]) -> None:
    show(load_config(DataShowConfig, None, {"name": "firefly"}))
    printed = capsys.readouterr().out
    assert (
        "none stated on its page, or not found" in printed and "not verified  modelscope" in printed
    )
    assert "mengya data get firefly out=data/firefly rows=10000" in printed
    show(load_config(DataShowConfig, None, {"name": "hub:wudao"}))
    printed = capsys.readouterr().out
    assert "https://data.baai.ac.cn" in printed and "mengya data get" not in printed


def test_references() -> None:
    assert parse_reference("hub:skypile") == Reference("skypile")
    assert parse_reference("a/b@v1.0:data/*.parquet") == Reference("a/b", "v1.0", "data/*.parquet")
    assert parse_reference("hub:a/b:*.json") == Reference("a/b", None, "*.json")
    for wrong in ("hub:", "hub:a/b/c", "hub:a b", "hub:/a", "hub:a@", "hub:a:"):
        with pytest.raises(UserError, match="the form is hub:NAME or hub:OWNER/NAME"):
            parse_reference(wrong)
