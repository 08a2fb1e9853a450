"""Sources that were moved or renamed are the same sources: nothing is made again, the manifest follows."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from mengya.config import load_config
from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.stages.prepare import PrepareConfig, run
from tests.helpers.json_lines import write_lines


def prepare(out: Path, tokenizer: Path, sources: Any, **settings: Any) -> Path:
    values = {"out": str(out), "tokenizer": str(tokenizer), "sources": sources, "workers": 1}
    run(PrepareConfig.model_validate(values | settings))
    return out


def records(count: int, word: str = "春") -> list[dict[str, str]]:
    return [{"text": f"{word}天来了，小镇上的第{i}朵花开了。"} for i in range(count)]


def tokens(out: Path) -> dict[str, tuple[int, int]]:
    """inode and time of the shards' files: another one was written again."""
    files = {path: path.stat() for path in out.rglob("*.bin")}
    return {str(path): (stat.st_ino, stat.st_mtime_ns) for path, stat in files.items()}


def paths(manifest: dict[str, Any]) -> list[str]:
    return [file["path"] for source in manifest["sources"] for file in source["files"]]


def test_a_moved_and_renamed_source_makes_nothing_anew(
    tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    for name, word in (("a.jsonl", "春"), ("b.jsonl", "秋")):
        write_lines(tmp_path / "data" / name, records(20, word))
    split = {"validation_fraction": 0.2}
    out = prepare(tmp_path / "out", tokenizer_folder, str(tmp_path / "data"), **split)
    before = tokens(out)
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "moved/a.jsonl").rename(tmp_path / "moved/aa.jsonl")
    capsys.readouterr()
    prepare(out, tokenizer_folder, str(tmp_path / "moved"), **split)
    said = capsys.readouterr().err
    assert "the same content as before" in said and "up to date" in said
    assert f"{tmp_path / 'data/a.jsonl'} -> {tmp_path / 'moved/aa.jsonl'}" in said
    assert tokens(out) == before
    for part in ("train", "validation"):
        manifest = TokenShards(out / part).manifest
        expected = [str(tmp_path / "moved" / name) for name in ("aa.jsonl", "b.jsonl")]
        assert paths(manifest) == expected
        assert [source["name"] for source in manifest["sources"]] == ["aa", "b"]
    prepare(out, tokenizer_folder, str(tmp_path / "moved"), **split)
    assert "the same content" not in capsys.readouterr().err


def test_the_report_is_as_if_it_had_been_made_there(tmp_path: Path, tokenizer_folder: Path) -> None:
    (tmp_path / "data").mkdir()
    question = "小镇上的图书馆每周三下午几点钟开始向居民免费借书？请你选出正确的那一个答案。"
    write_lines(tmp_path / "exam.jsonl", [{"question": question}])
    texts = [*records(20), {"text": "短"}, {"text": question}, {"bad": 1}]
    write_lines(tmp_path / "data/a.jsonl", texts)
    write_lines(tmp_path / "data/b.jsonl", records(20, "秋"))
    settings: dict[str, Any] = {
        "validation_fraction": 0.2, "filters": "standard", "near_duplicates": "drop",
        "contamination": {"exams": str(tmp_path / "exam.jsonl")},
    }  # fmt: skip
    out = prepare(tmp_path / "out", tokenizer_folder, str(tmp_path / "data"), **settings)
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "moved/a.jsonl").rename(tmp_path / "moved/aa.jsonl")
    sources = str(tmp_path / "moved")
    prepare(out, tokenizer_folder, sources, **settings)
    again = prepare(tmp_path / "again", tokenizer_folder, sources, **settings)
    for name in ("data_report.json", "report.html", "bad_lines.jsonl", "contamination.jsonl"):
        assert (out / name).read_text() == (again / name).read_text(), name
        assert "moved/aa.jsonl" in (out / name).read_text()
    (out / "data_report.json").write_text("{}")  # somebody's own
    files = [{"path": f"{sources}/aa.jsonl", "name": "小说"}, f"{sources}/b.jsonl"]
    prepare(out, tokenizer_folder, files, **settings)
    assert TokenShards(out / "train").manifest["sources"][0]["name"] == "小说"
    assert (out / "data_report.json").read_text() == "{}"


def test_a_name_or_license_is_noted_without_work(
    tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(write_lines(tmp_path / "a.jsonl", records(20)))
    out = prepare(tmp_path / "out", tokenizer_folder, data)
    before = tokens(out)
    prepare(out, tokenizer_folder, [{"path": data, "name": "小说", "license": "CC0"}])
    said = capsys.readouterr().err
    assert "name of 小说: 'a' -> '小说'" in said and "license of 小说: null -> 'CC0'" in said
    [source] = TokenShards(out).manifest["sources"]
    assert (source["name"], source["license"]) == ("小说", "CC0") and tokens(out) == before


def test_another_order_is_another_order_and_the_remedy_restores_it(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    (tmp_path / "data").mkdir()
    for name, word in (("a.jsonl", "春"), ("b.jsonl", "秋")):
        write_lines(tmp_path / "data" / name, records(20, word))
    out = prepare(tmp_path / "out", tokenizer_folder, str(tmp_path / "data"))
    before = tokens(out)
    (tmp_path / "data/a.jsonl").rename(tmp_path / "data/c.jsonl")
    with pytest.raises(UserError, match="same files, read in another order") as refused:
        prepare(out, tokenizer_folder, str(tmp_path / "data"))
    [typed] = [line for line in str(refused.value).splitlines() if "sources='" in line]
    [sources] = shlex.split(typed[typed.index("sources='") :])
    words = [f"out={out}", f"tokenizer={tokenizer_folder}", sources, "workers=1"]
    run(load_config(PrepareConfig, None, words))
    assert tokens(out) == before
    assert paths(TokenShards(out).manifest)[0].endswith("c.jsonl")


def test_a_name_that_is_read_in_another_way_is_not_the_same(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    data = write_lines(tmp_path / "a.jsonl", records(20))
    out = prepare(tmp_path / "out", tokenizer_folder, str(data))
    data.rename(tmp_path / "a.txt")
    with pytest.raises(UserError, match=r"a\.jsonl' -> '.*a\.txt'"):
        prepare(out, tokenizer_folder, str(tmp_path / "a.txt"))


def test_an_unfinished_build_resumes_with_a_moved_source(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mengya.data.ingest.reading.records.CHUNK_RECORDS", 20)
    data = write_lines(tmp_path / "a.jsonl", [*records(60), *[b"broken"] * 5, *records(20, "秋")])
    with pytest.raises(UserError, match="max_bad_lines=0"):
        prepare(tmp_path / "out", tokenizer_folder, str(data), max_bad_lines=0)
    partial = tmp_path / ".out.mengya-partial/00000.tokens.bin"
    inode = partial.stat().st_ino
    moved = str(data.rename(tmp_path / "moved.jsonl"))
    out = prepare(tmp_path / "out", tokenizer_folder, moved)
    assert (out / "00000.tokens.bin").stat().st_ino == inode
    assert paths(TokenShards(out).manifest) == [moved] and len(TokenShards(out)) == 80


def test_a_finished_build_that_was_not_renamed_yet(tmp_path: Path, tokenizer_folder: Path) -> None:
    data = write_lines(tmp_path / "a.jsonl", records(20))
    out = prepare(tmp_path / "out", tokenizer_folder, str(data))
    before = tokens(out)
    partial = out.rename(tmp_path / ".out.mengya-partial")
    (partial / ".mengya.json").write_text('{"format": 1, "verb": "prepare", "files": []}')
    moved = str(data.rename(tmp_path / "moved.jsonl"))
    prepare(out, tokenizer_folder, moved)
    assert tokens(out) == before and paths(TokenShards(out).manifest) == [moved]
    saved = json.loads((out / "prepare.json").read_text("utf-8"))
    assert saved["request"]["sources"][0]["files"][0]["path"] == moved


def test_a_manifest_without_the_sources_is_made_again(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    data = write_lines(tmp_path / "a.jsonl", records(20))
    out = prepare(tmp_path / "out", tokenizer_folder, str(data))
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    (out / "manifest.json").write_text(json.dumps(manifest | {"sources": []}), "utf-8")
    moved = str(data.rename(tmp_path / "moved.jsonl"))
    with pytest.raises(UserError, match=r"write overwrite=true.*does not have the 1 sources"):
        prepare(out, tokenizer_folder, moved)
    prepare(out, tokenizer_folder, moved, overwrite=True)
    assert paths(TokenShards(out).manifest) == [moved]
