"""`mengya prepare`: right tokens and masks, every bad line noted, the same bytes however it is run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pydantic import ValidationError

from mengya.config import load_config
from mengya.data.ingest.reading.read import read_records
from mengya.data.ingest.reading.records import BadLines
from mengya.data.prepare import config
from mengya.data.prepare.encoding.tokenize import TOKENIZE_CHARACTERS, cut_for_tokenizing
from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.stages.prepare import PrepareConfig, run
from mengya.tokenizer.load import (
    document_token_id,
    encode_texts,
    load_tokenizer,
    plain_backend,
    tokenizer_hash,
)
from tests.helpers.json_lines import write_lines


def prepare(out: Path, tokenizer: Path, sources: Any, **settings: Any) -> Path:
    config = {
        "out": str(out),
        "tokenizer": str(tokenizer),
        "sources": sources,
        "workers": 1,
        **settings,
    }
    run(PrepareConfig.model_validate(config))
    return out


def decoded(tokenizer_folder: Path, ids: Any) -> str:
    text = load_tokenizer(tokenizer_folder).decode(np.asarray(ids).tolist())
    assert isinstance(text, str)
    return text


def texts(count: int, seed: int = 0) -> list[dict[str, str]]:
    rng = random.Random(seed)
    letters = "春天来了小镇上的花都开老王在河边钓鱼女儿坐旁看书，。 abc\n"
    return [
        {"text": f"{i}号：" + "".join(rng.choices(letters, k=rng.randint(10, 200)))}
        for i in range(count)
    ]


def junk(count: int) -> list[dict[str, str]]:
    """Texts that the standard filters drop or edit, in turns."""
    kinds = (
        "哈哈哈哈哈哈" * 60 + "{}",
        "联系人{}，电话13812345678，春天来了，小镇上的花都开了，老王在河边钓鱼。",
        "<p>第{}段，春天来了</p><br>小镇上的花都开了，老王在河边钓鱼。",
        "first {} second third fourth fifth sixth seventh",
    )
    return [{"text": kinds[i % len(kinds)].format(i)} for i in range(count)]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but prepare.json, which holds times."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "prepare.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_text_documents(tmp_path: Path, tokenizer_folder: Path) -> None:
    records = texts(50)
    records[7] = {"text": "控制符号<|im_end|>和<|endoftext|>不是控制符号"}
    write_lines(tmp_path / "a.jsonl", records)
    shards = TokenShards(prepare(tmp_path / "out", tokenizer_folder, [str(tmp_path / "a.jsonl")]))
    tokenizer = load_tokenizer(tokenizer_folder)
    edge = document_token_id(tokenizer)
    assert len(shards) == 50
    for number, record in enumerate(records):
        ids = shards.tokens(number).tolist()
        assert ids[0] == ids[-1] == edge and edge not in ids[1:-1]
        assert decoded(tokenizer_folder, ids[1:-1]) == record["text"].strip()
    assert shards.manifest["characters"] == sum(len(r["text"].strip()) for r in records)
    assert shards.manifest["learnt_tokens"] == int((shards.lengths - 1).sum())
    assert shards.manifest["vocab_size"] == len(tokenizer)
    shards.require("text", tokenizer_sha256=tokenizer_hash(tokenizer_folder))


def test_conversations_learn_every_assistant_turn_and_nothing_else(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    call = {"type": "function", "function": {"name": "天气", "arguments": {"city": "北京"}}}
    conversations = [
        [
            ("system", "简短"),
            ("user", "你好"),
            ("assistant", "您好！"),
            ("user", "几点"),
            ("assistant", "三点。"),
        ],
        [
            ("user", "北京天气？"),
            ("assistant", call),
            ("tool", '{"t": 3}'),
            ("assistant", "三度。"),
        ],
    ]
    records = [
        {
            "messages": [
                {"role": role, "content": content}
                if isinstance(content, str)
                else {"role": role, "content": "", "tool_calls": [content]}
                for role, content in turns
            ],
        }
        for turns in conversations
    ]
    write_lines(tmp_path / "a.jsonl", records)
    shards = TokenShards(
        prepare(
            tmp_path / "out", tokenizer_folder, [str(tmp_path / "a.jsonl")], kind="conversation"
        )
    )
    labelled = []
    for number in range(2):
        ids, mask = shards.tokens(number), shards.loss_mask(number).astype(bool)
        starts = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int)])) == 1)
        ends = np.flatnonzero(np.diff(np.concatenate([mask.astype(int), [0]])) == -1)
        labelled.append(
            [decoded(tokenizer_folder, ids[a : b + 1]) for a, b in zip(starts, ends, strict=True)]
        )
    assert labelled[0] == ["您好！<|im_end|>", "三点。<|im_end|>"]
    assert labelled[1][0].startswith("<tool_call>") and '"天气"' in labelled[1][0]
    assert labelled[1][1:] == ["三度。<|im_end|>"]
    assert shards.manifest["learnt_tokens"] == sum(int(shards.loss_mask(i).sum()) for i in range(2))
    assert shards.manifest["characters"] >= len("您好！三点。三度。")


def test_preferences_learn_the_completion_only(tmp_path: Path, tokenizer_folder: Path) -> None:
    record = {"q": "几点了？", "history": [["你好", "您好！"]], "pos": "三点整。", "neg": "不知道"}
    write_lines(tmp_path / "a.jsonl", [record])
    shards = TokenShards(
        prepare(tmp_path / "out", tokenizer_folder, [str(tmp_path / "a.jsonl")], kind="preference")
    )
    assert len(shards) == 2
    for side, answer in enumerate(("三点整。", "不知道")):
        ids, mask = shards.tokens(side), shards.loss_mask(side).astype(bool)
        assert decoded(tokenizer_folder, ids[mask]) == f"{answer}<|im_end|>"
        assert "您好！" in decoded(tokenizer_folder, ids[~mask])
    assert shards.manifest["characters"] == len("三点整。不知道")


def test_ids_of_a_long_text_do_not_depend_on_the_cuts(tokenizer_folder: Path) -> None:
    text = "".join(record["text"] + "\n\n  第二段\n" for record in texts(3000))
    tokenizer = load_tokenizer(tokenizer_folder)
    backend = plain_backend(tokenizer)
    pieces = cut_for_tokenizing(text, backend)
    assert len(pieces) > 2 and "".join(pieces) == text
    assert max(map(len, pieces)) <= 2 * TOKENIZE_CHARACTERS
    cut = [i for ids in encode_texts(tokenizer, pieces) for i in ids]
    assert cut == encode_texts(tokenizer, [text])[0]
    without_lines = "长" * 200_000
    assert cut_for_tokenizing(without_lines, backend) == [without_lines]  # one word
    one_line = "春天来了，花开了。" * 20_000
    pieces = cut_for_tokenizing(one_line, backend)
    assert len(pieces) > 2 and "".join(pieces) == one_line
    cut = [i for ids in encode_texts(tokenizer, pieces) for i in ids]
    assert cut == encode_texts(tokenizer, [one_line])[0]


GOOD_LINE = '{"text": "这是一行好的文字，编号%d"}'
BAD_LINES: list[tuple[bytes, str]] = [
    (b'{"text": "abc', "not JSON"),
    (b'{"text": "abc",}', "not JSON"),
    ("这不是 JSON".encode(), "not JSON"),
    (b"", "empty line"),
    (b"   ", "empty line"),
    (b"{}", "no field 'text'"),
    (b'{"content": "no text"}', "no field 'text'"),
    (b'{"text": 42}', "not a string"),
    (b'{"text": null}', "not a string"),
    (b'{"text": ["a", "b"]}', "not a string"),
    (b'{"text": {"a": 1}}', "not a string"),
    (b'["a", "list"]', "a list where an object"),
    (b'"a string"', "a string where an object"),
    (b"17", "a number where an object"),
    (b'{"text": "\xff\xfe invalid"}', "not valid utf-8"),
    ('{"text": "截断的'.encode()[:-1] + b'"}', "not valid utf-8"),
    (b'{"text": "raw \x00 nul"}', "not JSON"),
    (b"\x00\x00\x00", "not JSON"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"text": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001, "nested too deeply"),
    (b'{"text": "half \\ud83d pair"}', "surrogate"),
    (b'{"text": "one"} {"text": "two"}', "not JSON"),
]


@pytest.fixture
def planted(tmp_path: Path) -> dict[tuple[str, int], str]:
    """Five files with 1,000 bad lines among 3,000 good ones: (file, line) -> the beginning of its reason."""
    rng = random.Random(0)
    expected: dict[tuple[str, int], str] = {}
    for number in range(5):
        path = tmp_path / "data" / f"{number}.jsonl"
        kinds: list[tuple[bytes, str] | None] = [BAD_LINES[i % len(BAD_LINES)] for i in range(200)]
        kinds += [None] * 600
        rng.shuffle(kinds)
        rows = []
        for line, kind in enumerate(kinds, start=1):
            rows.append(kind[0] if kind else (GOOD_LINE % (number * 1000 + line)).encode())
            if kind:
                expected[str(path), line] = kind[1]
        write_lines(path, rows)
    return expected


def test_a_thousand_bad_lines_are_reported_with_file_line_and_reason(
    tmp_path: Path,
    tokenizer_folder: Path,
    planted: dict[tuple[str, int], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mengya.data.ingest.reading.records.CHUNK_RECORDS", 100)
    out = prepare(tmp_path / "out", tokenizer_folder, [str(tmp_path / "data")], max_bad_lines=1000)
    noted = [json.loads(line) for line in (out / "bad_lines.jsonl").read_text("utf-8").splitlines()]
    assert len(noted) == len(planted) == 1000
    assert {(t["file"], t["line"]) for t in noted} == planted.keys()
    for t in noted:
        assert planted[t["file"], t["line"]] in t["reason"], t
    shards = TokenShards(out)
    assert len(shards) == 3000
    assert shards.manifest["bad_lines"] == 1000 and shards.manifest["read"] == 4000
    assert [s["bad_lines"] for s in shards.manifest["sources"]] == [200] * 5


def test_more_bad_lines_than_allowed_are_refused_until_more_are_allowed(
    tmp_path: Path,
    tokenizer_folder: Path,
    planted: dict[tuple[str, int], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mengya.data.ingest.reading.records.CHUNK_RECORDS", 100)
    uninterrupted = prepare(
        tmp_path / "uninterrupted", tokenizer_folder, [str(tmp_path / "data")], max_bad_lines=1000
    )
    for limit in (199, 60, 0):
        with pytest.raises(UserError, match=f"max_bad_lines={limit} bad lines.*\n.*0.jsonl:"):
            prepare(
                tmp_path / "out", tokenizer_folder, [str(tmp_path / "data")], max_bad_lines=limit
            )
        assert not (tmp_path / "out").exists()
    out = prepare(tmp_path / "out", tokenizer_folder, [str(tmp_path / "data")], max_bad_lines=1000)
    assert contents(out) == contents(uninterrupted)
    assert not (tmp_path / ".out.mengya-partial").exists()


def test_bad_conversations_are_reported_too(tmp_path: Path, tokenizer_folder: Path) -> None:
    good = {"prompt": "你好", "response": "您好"}
    write_lines(
        tmp_path / "a.jsonl",
        [good, [1], {"messages": [{"role": "x", "content": "y"}]}, {"text": "t"}, b"oops"],
    )
    out = prepare(
        tmp_path / "out", tokenizer_folder, [str(tmp_path / "a.jsonl")], kind="conversation"
    )
    noted = [json.loads(line) for line in (out / "bad_lines.jsonl").read_text("utf-8").splitlines()]
    assert [t["line"] for t in noted] == [2, 3, 4, 5]
    assert len(TokenShards(out)) == 1


def test_dropped_duplicates_and_short_texts_are_counted(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    records = texts(30)
    write_lines(tmp_path / "a.jsonl", [*records, {"text": "短"}, {"text": ""}, *records[:4]])
    write_lines(
        tmp_path / "b.jsonl",
        [{"text": " " + records[9]["text"].upper()}, {"text": "只有这里才有的文字"}],
    )
    out = prepare(
        tmp_path / "out", tokenizer_folder, [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    )
    manifest = TokenShards(out).manifest
    assert manifest["dropped"] == {"duplicate": 5, "empty": 1, "too_short": 1}
    assert [s["dropped"] for s in manifest["sources"]] == [
        {"duplicate": 4, "empty": 1, "too_short": 1},
        {"duplicate": 1},
    ]
    assert [s["documents"] for s in manifest["sources"]] == [30, 1]
    kept = prepare(tmp_path / "kept", tokenizer_folder, [str(tmp_path / "a.jsonl")], dedup=False)
    assert len(TokenShards(kept)) == 34


def test_the_validation_split_shares_nothing_with_training(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    records = texts(400)
    write_lines(tmp_path / "a.jsonl", [*records, *records[:200]])
    out = prepare(
        tmp_path / "out",
        tokenizer_folder,
        [str(tmp_path / "a.jsonl")],
        validation_fraction=0.2,
        dedup=False,
    )
    train, held = TokenShards(out / "train"), TokenShards(out / "validation")
    documents = [{tuple(s.tokens(i).tolist()) for i in range(len(s))} for s in (train, held)]
    assert len(train) + len(held) == 600 and not documents[0] & documents[1]
    assert 40 < len(documents[1]) < 130
    assert train.manifest["characters"] + held.manifest["characters"] == sum(
        len(r["text"].strip()) for r in [*records, *records[:200]]
    )
    with pytest.raises(UserError, match="raise validation_fraction"):
        prepare(
            tmp_path / "none",
            tokenizer_folder,
            [str(tmp_path / "a.jsonl")],
            validation_fraction=1e-9,
        )


def test_the_number_of_workers_changes_nothing(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mengya.data.ingest.reading.records.CHUNK_RECORDS", 37)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_number_filter.py").write_text(
        "def odd(text):\n    return 'odd' if text[:2] in ('11', '13') else None\n"
    )
    write_lines(tmp_path / "a.jsonl", [*texts(400), b"broken", *junk(60), *texts(100)])
    write_lines(tmp_path / "b.jsonl", texts(300, seed=1))
    results = [
        contents(
            prepare(
                tmp_path / f"out{workers}",
                tokenizer_folder,
                [str(tmp_path / "*.jsonl")],
                workers=workers,
                validation_fraction=0.1,
                filters={"base": "standard", "own": "my_number_filter:odd"},
            )
        )
        for workers in (1, 2)
    ]
    assert results[0] == results[1]
    assert "train/00000.tokens.bin" in results[0] and "bad_lines.jsonl" in results[0]
    report = json.loads(results[0]["data_report.json"])
    assert {"odd", "duplicate", "few_han"} <= report["sources"][0]["dropped"].keys()
    assert {"pii", "html"} <= report["sources"][0]["edits"].keys()


SLOW_RUN = """
import sys, time
from pathlib import Path
from mengya.data.ingest.reading import records
from mengya.data.prepare import build, pipeline
from mengya.stages import prepare
if __name__ == "__main__":
    records.CHUNK_RECORDS, pipeline.COMMIT_SECONDS = 20, 0
    commit = build.Build.commit
    def slow_commit(self):
        commit(self)
        time.sleep(float(sys.argv[4]))
    build.Build.commit = slow_commit
    prepare.run(prepare.PrepareConfig.model_validate(dict(
        out=sys.argv[1], tokenizer=sys.argv[2], sources=[sys.argv[3]], workers=2,
        validation_fraction=0.1, max_bad_lines=50, filters="standard")))
"""


def test_a_killed_run_resumes_and_ends_in_the_same_bytes(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mengya.data.ingest.reading.records.CHUNK_RECORDS", 20)
    data = write_lines(
        tmp_path / "a.jsonl",
        [*texts(480), *junk(20), b"broken", *texts(60), b"[]", *junk(40), *texts(360, seed=2)],
    )
    uninterrupted = prepare(
        tmp_path / "uninterrupted",
        tokenizer_folder,
        [str(data)],
        validation_fraction=0.1,
        filters="standard",
    )
    out, partial = tmp_path / "out", tmp_path / ".out.mengya-partial"
    (tmp_path / "run.py").write_text(SLOW_RUN)
    command = [sys.executable, str(tmp_path / "run.py"), str(out), str(tokenizer_folder), str(data)]
    reached = 0
    process = subprocess.Popen([*command, "0.05"], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while reached < 5 and time.monotonic() < deadline and process.poll() is None:
        state = partial / "state.json"
        reached = json.loads(state.read_text())["chunks"] if state.exists() else 0
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not out.exists()
    assert (
        children and not psutil.wait_procs(children, timeout=20)[1]
    )  # workers die with their parent
    assert 5 <= reached < 48  # of 49
    with (partial / "train" / "00000.tokens.bin").open("ab") as file:
        file.write(b"half a write")
    done = subprocess.run([*command, "0"], capture_output=True, text=True, check=True)
    assert "resuming after" in done.stderr
    assert f"process {process.pid}" in done.stderr and "taken over" in done.stderr
    assert contents(out) == contents(uninterrupted)


def test_a_second_run_does_nothing_and_a_changed_one_is_refused(
    tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_lines(tmp_path / "a.jsonl", texts(40))
    out = prepare(tmp_path / "out", tokenizer_folder, [str(data)])
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    capsys.readouterr()
    prepare(out, tokenizer_folder, [str(data)], workers=3, max_bad_lines=7)
    assert "up to date" in capsys.readouterr().err
    data.touch()  # a new time alone is no change
    prepare(out, tokenizer_folder, [str(data)])
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == before
    with pytest.raises(UserError, match=r"clean.min_characters: 5 -> 9(.|\n)*overwrite=true"):
        prepare(out, tokenizer_folder, [str(data)], clean={"min_characters": 9})
    write_lines(data, texts(41))
    with pytest.raises(UserError, match=r"sources.0.files.0.sha256"):
        prepare(out, tokenizer_folder, [str(data)])
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == before
    prepare(out, tokenizer_folder, [str(data)], overwrite=True)
    assert len(TokenShards(out)) == 41
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "out"]


def without_checksums(path: Path) -> None:
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for part in manifest["parts"]:
        del part["crc32"]
    path.write_text(json.dumps(manifest), encoding="utf-8")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage", "noticed"),
    [
        ("train/00000.tokens.bin", flipped, False),
        ("validation/00000.tokens.bin", lambda path: os.truncate(path, 4), True),
        ("validation/manifest.json", Path.unlink, True),
        ("train/manifest.json", without_checksums, False),
    ],
)
def test_damaged_shards_are_made_again_with_overwrite(
    tmp_path: Path, tokenizer_folder: Path, name: str, damage: Any, noticed: bool
) -> None:
    """The remedy that a run names for damaged shards works, though settings and files are the same."""
    data = write_lines(tmp_path / "a.jsonl", texts(60))
    settings: dict[str, Any] = {"sources": [str(data)], "validation_fraction": 0.3}
    out = prepare(tmp_path / "out", tokenizer_folder, **settings)
    before = contents(out)
    damage(out / name)
    if noticed:
        with pytest.raises(UserError, match="write overwrite=true"):
            prepare(out, tokenizer_folder, **settings)
    prepare(out, tokenizer_folder, **settings, overwrite=True)
    assert contents(out) == before
    for split in ("train", "validation"):
        TokenShards(out / split).verify()
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    prepare(out, tokenizer_folder, **settings, overwrite=True)  # sound now: nothing to do
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == times


def test_a_folder_of_somebody_else_is_never_replaced(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    data = write_lines(tmp_path / "a.jsonl", texts(5))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="choose another out="):
        prepare(tmp_path / "mine", tokenizer_folder, [str(data)], overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_two_runs_at_once_into_one_folder(tmp_path: Path, tokenizer_folder: Path) -> None:
    data = write_lines(tmp_path / "a.jsonl", texts(500))
    (tmp_path / "run.py").write_text(SLOW_RUN)
    out, partial = tmp_path / "out", tmp_path / ".out.mengya-partial"
    command = [sys.executable, str(tmp_path / "run.py"), str(out), str(tokenizer_folder), str(data)]
    first = subprocess.Popen([*command, "0.2"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (partial / "state.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    mengya = [sys.executable, "-m", "mengya", "prepare", f"out={out}"]
    settings = [f"tokenizer={tokenizer_folder}", f'sources=["{data}"]', "validation_fraction=0.1"]
    second = subprocess.run(
        [*mengya, *settings, "max_bad_lines=50"], capture_output=True, text=True
    )
    assert first.poll() is None, "the first run ended too early to test anything"
    assert second.returncode == 2
    assert f"process {first.pid} on " in " ".join(second.stderr.split())
    assert first.wait(timeout=120) == 0
    uninterrupted = prepare(
        tmp_path / "uninterrupted", tokenizer_folder, [str(data)], validation_fraction=0.1
    )
    assert contents(out) == contents(uninterrupted)


def test_foreign_files_in_the_folder_survive(tmp_path: Path, tokenizer_folder: Path) -> None:
    data = write_lines(tmp_path / "a.jsonl", texts(20))
    out = prepare(tmp_path / "out", tokenizer_folder, [str(data)])
    (out / "thesis.txt").write_text("years of work")
    prepare(out, tokenizer_folder, [str(data)])  # up to date: nothing is touched
    with pytest.raises(UserError, match=r"did not write: thesis\.txt") as refused:
        prepare(out, tokenizer_folder, [str(data)], dedup=False, overwrite=True)
    other = Path(str(refused.value).rpartition("out=")[2])
    prepare(other, tokenizer_folder, [str(data)], dedup=False)
    assert (out / "thesis.txt").read_text() == "years of work"
    for name in ("out.old", "out.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text(name)
    (out / "thesis.txt").unlink()
    prepare(out, tokenizer_folder, [str(data)], dedup=False, overwrite=True)
    for name in ("out.old", "out.partial"):
        assert (tmp_path / name / "thesis.txt").read_text() == name


def test_a_run_killed_before_the_last_rename_has_only_that_left(
    tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_lines(tmp_path / "a.jsonl", texts(20))
    out = prepare(tmp_path / "out", tokenizer_folder, [str(data)])
    before = contents(out)
    partial = out.rename(tmp_path / ".out.mengya-partial")
    marker = partial / ".mengya.json"
    marker.write_text('{"format": 1, "verb": "prepare", "files": []}')  # as while it is written
    prepare(out, tokenizer_folder, [str(data)])
    assert "only had to be renamed" in capsys.readouterr().err and contents(out) == before


@pytest.mark.parametrize(
    "stopped_at",
    [
        "mengya.data.prepare.report.write.write_report",
        "mengya.data.prepare.request.inputs.Inputs.save",
        "mengya.data.prepare.build.clear",
        "mengya.runtime.output_folder.OutputFolder.publish",
    ],
)
def test_a_run_killed_after_the_shards_are_written_reads_nothing_again(
    tmp_path: Path,
    tokenizer_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    stopped_at: str,
) -> None:
    monkeypatch.setattr("mengya.data.ingest.reading.records.CHUNK_RECORDS", 5)
    data = write_lines(tmp_path / "a.jsonl", [*texts(20), {"bad": 1}])
    settings: dict[str, Any] = {"validation_fraction": 0.3, "repeated_text": {}}
    straight = prepare(tmp_path / "straight", tokenizer_folder, [str(data)], **settings)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stopped_at, killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path / "out", tokenizer_folder, [str(data)], **settings)
    capsys.readouterr()
    out = prepare(tmp_path / "out", tokenizer_folder, [str(data)], **settings)
    said = capsys.readouterr().err
    assert "starting again" not in said and "other settings" not in said
    assert "resuming after 21 records" in said or "only had to be renamed" in said
    assert contents(out) == contents(straight)
    assert not {"state.json", "hashes.bin", "repeated_text.npy"} & {p.name for p in out.iterdir()}


def test_a_folder_with_nothing_to_resume_is_not_called_one_of_other_settings(
    tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_lines(tmp_path / "a.jsonl", texts(20))
    out = prepare(tmp_path / "out", tokenizer_folder, [str(data)])
    partial = out.rename(tmp_path / ".out.mengya-partial")
    (partial / "prepare.json").unlink()
    capsys.readouterr()
    prepare(out, tokenizer_folder, [str(data)])
    assert "holds nothing to resume: starting again" in capsys.readouterr().err


def test_folders_of_versions_without_markers(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mengya.data.ingest.reading.records.CHUNK_RECORDS", 20)
    data = write_lines(tmp_path / "a.jsonl", [*texts(100), *[b"broken"] * 5, *texts(50, seed=1)])
    out = tmp_path / "out"
    with pytest.raises(UserError, match="max_bad_lines=0"):
        prepare(out, tokenizer_folder, [str(data)], max_bad_lines=0)
    (tmp_path / ".out.mengya-partial").rename(tmp_path / "out.partial")
    (tmp_path / "out.partial/.mengya.json").unlink()
    tokens = (tmp_path / "out.partial/00000.tokens.bin").stat()
    assert tokens.st_size > 0
    prepare(out, tokenizer_folder, [str(data)])
    assert (out / "00000.tokens.bin").stat().st_ino == tokens.st_ino  # resumed, not made again
    assert not (tmp_path / "out.partial").exists()
    (out / ".mengya.json").unlink()
    prepare(out, tokenizer_folder, [str(data)], dedup=False, overwrite=True)
    assert (out / ".mengya.json").is_file()


def test_the_old_spelling_of_license(
    tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [{"path": str(write_lines(tmp_path / "a.jsonl", texts(20))), "license": "CC0"}]
    out = prepare(tmp_path / "out", tokenizer_folder, data)
    for name in ("manifest.json", "prepare.json"):  # as earlier versions wrote them
        text = (out / name).read_text("utf-8")
        assert '"license": "CC0"' in text
        (out / name).write_text(text.replace('"license"', '"licence"'), encoding="utf-8")
    before = contents(out)
    assert TokenShards(out).manifest["sources"][0]["license"] == "CC0"
    assert "`licence`" not in capsys.readouterr().err

    config.say_license.cache_clear()
    old = [{"path": data[0]["path"], "licence": "CC0"}] * 2
    prepare(out, tokenizer_folder, old[:1])
    said = capsys.readouterr().err
    assert "up to date" in said and contents(out) == before
    assert said.count("the key `licence` of a source is now `license`") == 1
    made = PrepareConfig.model_validate({"out": out, "tokenizer": out, "sources": old})
    assert [source.license for source in made.sources] == ["CC0", "CC0"]
    assert not capsys.readouterr().err  # once is enough

    both = {"path": "a", "license": "CC0", "licence": "CC0"}
    with pytest.raises(ValidationError, match="licence"):
        PrepareConfig.model_validate({"out": out, "tokenizer": out, "sources": [both]})


def test_limits_fields_and_text_files(tmp_path: Path, tokenizer_folder: Path) -> None:
    write_lines(
        tmp_path / "a.jsonl", [{"title": f"题{i}", "body": f"第{i}篇的正文"} for i in range(20)]
    )
    (tmp_path / "b.txt").write_text("第一行的文字\n第二行的文字\n", encoding="utf-8")
    sources = [
        {
            "path": str(tmp_path / "a.jsonl"),
            "field": ["title", "body"],
            "limit": 5,
            "license": "CC0",
            "name": "甲",
        },
        {"path": str(tmp_path / "b.txt"), "split_text": "line"},
    ]
    shards = TokenShards(prepare(tmp_path / "out", tokenizer_folder, sources))
    assert [s["documents"] for s in shards.manifest["sources"]] == [5, 2]
    assert [(s["name"], s["license"]) for s in shards.manifest["sources"]] == [
        ("甲", "CC0"),
        ("b", None),
    ]
    assert decoded(tokenizer_folder, shards.tokens(3)[1:-1]) == "题3\n第3篇的正文"


def test_nothing_kept_is_refused(tmp_path: Path, tokenizer_folder: Path) -> None:
    data = write_lines(tmp_path / "a.jsonl", [{"text": "短"}])
    with pytest.raises(
        UserError, match=r"nothing is left for train of 1 records.*min_characters=0"
    ):
        prepare(tmp_path / "out", tokenizer_folder, [str(data)])
    write_lines(data, [{"text": "nothing but English words here, today"}])
    with pytest.raises(UserError, match=r"1 were dropped as few_han; write filters.scripts=null"):
        prepare(tmp_path / "out", tokenizer_folder, [str(data)], filters="standard")
    with pytest.raises(UserError, match="lower validation_fraction"):
        prepare(tmp_path / "out", tokenizer_folder, [str(data)], validation_fraction=0.999999)


def test_names_of_files_steer_no_terminal(
    tmp_path: Path, tokenizer_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write_lines(
        tmp_path / "[red]x\x1b[31m.jsonl", [{"text": "春天来了，花都开了。", "x\x1b[1m": 1}]
    )
    prepare(tmp_path / "out", tokenizer_folder, [str(data)])
    said = capfd.readouterr().err
    assert "\x1b" not in said and "[red]x␛[31m" in said


def test_wrong_settings_are_refused_before_any_work(tmp_path: Path) -> None:
    base = [f"out={tmp_path}/out", f"tokenizer={tmp_path}", "sources=[a.jsonl]"]
    for override, message in (
        ("kind=conversations", "kind"),
        ("validation_fraction=1", "validation_fraction"),
        ('sources=[{"path": "a", "format": "alpacca"}]', "must be"),
        ('sources=[{"path": "a", "encoding": "utf-88"}]', "not an encoding"),
        ("sources=[]", "sources"),
    ):
        with pytest.raises(UserError, match=message):
            load_config(PrepareConfig, None, [*base, override])
    config = load_config(PrepareConfig, None, base)
    assert config.sources[0].path == "a.jsonl"


COVERED = {
    "conversation": {
        "alpaca": "alpaca_zh_carbonz0 alpaca_zh_demo belle_dev_1k oaast_sft_zh identity self_cognition "
        "lima_en ruozhiba_emollm better_ruozhiba huatuo_llama_med huatuo26m_test "
        "alpaca_zh_hikariming_extra belle_open_source_1k",
        "sharegpt": "glaive_toolcall_zh sharegpt_zh_1k medical_sft_1k",
        "question_answer": "kefu_qa gsm8k_train chatlm_mini_train_3k medical_dialogue_neike "
        "lawyer_llama_zixun_gpt4",
        "alpaca_turns": "lawyer_llama_legal_advice lawyer_llama_judical_examination",
        "dialog": "smilechat_6k",
        "turns": "emollm_data emollm_aiwei emollm_tiangou",
    },
    "preference": {
        "chosen_rejected": "dpo_zh_demo dpo_zh_500 dpo_en_demo halluqa_pairs halluqa_model_pairs "
        "cello_model_pairs belle_eval_pre_post_dpo",
        "ranking": "oaast_rm_zh",
    },
}


def test_real_files_are_understood(shared_data: Path) -> None:
    from mengya.data.ingest.preferences import detect_preference, to_preferences
    from mengya.data.ingest.schema import detect_conversation, to_conversation

    tools = {
        "conversation": (detect_conversation, to_conversation),
        "preference": (detect_preference, to_preferences),
    }
    for kind, formats in COVERED.items():
        detect, convert = tools[kind]
        for name, stems in formats.items():
            for stem in stems.split():
                (path,) = shared_data.glob(f"*/{stem}.*")
                found: Counter[str] = Counter()
                for number, record in enumerate(read_records(str(path), BadLines(0))):
                    found[detect(record.value)] += 1
                    convert(record.value)
                    if number == 60:
                        break
                assert found.keys() == {name}, (stem, found)


def test_real_files_are_prepared(shared_data: Path, tmp_path: Path, tokenizer_folder: Path) -> None:
    for kind, pattern in (
        ("text", "pretrain/*"),
        ("conversation", "sft/*zh*"),
        ("preference", "dpo/*zh*"),
    ):
        sources = [{"path": str(shared_data / pattern), "limit": 20, "name": kind}]
        if kind == "text":
            sources = [
                {"path": str(p), "limit": 3}
                for p in sorted((shared_data / "pretrain").glob("*.gz"))
            ]
        out = prepare(
            tmp_path / kind, tokenizer_folder, sources, kind=kind, skip_unknown_files=True
        )
        shards = TokenShards(out)
        assert shards.manifest["bad_lines"] == 0 and len(shards) >= 20
        assert all(source["documents"] for source in shards.manifest["sources"])
