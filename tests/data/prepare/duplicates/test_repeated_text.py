"""Passages of earlier documents are removed, the same ones however `prepare` is run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from mengya.data.prepare.duplicates.repeated_text import (
    SORTED,
    TABLE,
    RepeatedPassages,
    RepeatedText,
    RepeatedTextPlan,
)
from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.stages.prepare import PrepareConfig
from mengya.text.repeated_text.config import RepeatedTextConfig
from tests.data.prepare.duplicates.test_near_duplicates import (
    contents,
    interrupt_twice,
    prepare,
    texts,
)
from tests.helpers.json_lines import write_lines
from tests.text.near_duplicates.texts import changed, jaccard, text

FOOTER = (
    "版权声明：本文为原创文章，转载请注明出处。欢迎关注我们的公众号，第一时间获取更多精彩内容。"
)


def test_boilerplate_stays_in_the_first_document_alone(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    rng = random.Random(0)
    bodies = [f"{text(rng, 60)}\n{text(rng, 80)}" for _ in range(12)]
    write_lines(tmp_path / "a.jsonl", [{"text": f"{one}\n{FOOTER}"} for one in bodies])
    quote = bodies[3].split("\n")[1]
    more = [f"{text(rng, 30)}{quote}{text(rng, 30)}", f"{quote}\n{text(rng, 20)}"]
    short = {"text": f"{FOOTER}\n短"}
    write_lines(tmp_path / "b.jsonl", [*({"text": one} for one in more), short, short])
    write_lines(tmp_path / "c.jsonl", [{"text": f"{bodies[5]}\n{FOOTER}"}])  # an exact duplicate
    sources = [str(tmp_path / f"{name}.jsonl") for name in "abc"]
    out = prepare(
        tmp_path / "lines", tokenizer_folder, sources,
        repeated_text={"min_characters": 40}, validation_fraction=0,
    )  # fmt: skip
    assert texts(tokenizer_folder, out) == [f"{bodies[0]}\n{FOOTER}", *bodies[1:], more[0]]
    manifest = TokenShards(out).manifest
    assert manifest["dropped"] == {"duplicate": 1, "repeated_text": 3}
    report = json.loads((out / "data_report.json").read_text("utf-8"))
    assert report["sources"][0]["edits"]["repeated_text"]["samples"] == 11
    assert report["sources"][1]["dropped"]["repeated_text"]["samples"] == 3
    assert not (out / TABLE).exists() and not (out / SORTED).exists()

    out = prepare(
        tmp_path / "runs", tokenizer_folder, sources, dedup=False,
        repeated_text={"unit": "substring", "min_characters": 40, "max_removed": 1},
    )  # fmt: skip
    kept = texts(tokenizer_folder, out)
    (quoting,) = [one for one in kept if one.startswith(more[0][:20])]
    assert quoting.endswith(more[0][-20:]) and len(quoting) < len(more[0]) - 40


def test_workers_and_a_resume_change_nothing(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mengya.data.ingest.reading.records.CHUNK_RECORDS", 20)
    monkeypatch.setattr("mengya.data.prepare.pipeline.COMMIT_SECONDS", 0)
    rng = random.Random(1)
    lines = [text(rng, 60) for _ in range(300)]
    records = [{"text": "\n".join(rng.choices(lines, k=4))} for _ in range(240)]
    source = str(write_lines(tmp_path / "a.jsonl", records))
    settings = {"repeated_text": {"max_removed": 0.8}}
    full = prepare(tmp_path / "full", tokenizer_folder, source, **settings)
    two = prepare(tmp_path / "two", tokenizer_folder, source, **settings, workers=2)
    assert contents(two) == contents(full)
    kept = [line for one in texts(tokenizer_folder, full) for line in set(one.split("\n"))]
    assert len(kept) == len(set(kept)) > 100  # every line once
    assert set(kept) == {line for record in records for line in record["text"].split("\n")}
    out = tmp_path / "out"
    interrupt_twice(
        lambda: prepare(out, tokenizer_folder, source, **settings),
        tmp_path / ".out.mengya-partial",
        monkeypatch,
    )
    assert contents(out) == contents(full)


def test_the_table_holds_what_several_documents_have(tmp_path: Path) -> None:
    config = RepeatedTextConfig(min_characters=20)
    lines = ["甲" * 30, "乙" * 30, "丙" * 30]
    documents = [f"{lines[0]}\n{lines[0]}", f"{lines[1]}\n{lines[2]}", f"{lines[2]}\n{lines[0]}"]
    (tmp_path / SORTED).mkdir()
    (tmp_path / SORTED / "left over").touch()  # of a run that was killed
    found = RepeatedPassages(tmp_path)
    collect = RepeatedText(RepeatedTextPlan(config))
    for document in documents:
        found.add(collect.collect([document]))
    remove = RepeatedText(RepeatedTextPlan(config, found.finish()))
    assert remove.table is not None and len(remove.table) == 2
    assert np.all(np.diff(remove.table["hash"].astype(np.float64)) > 0)
    assert [remove.remove(one) for one in documents] == [
        (documents[0], True),
        (documents[1], True),
        (None, False),
    ]
    assert list(tmp_path.iterdir()) == [tmp_path / TABLE]


def test_an_empty_table_removes_nothing(tmp_path: Path) -> None:
    table = RepeatedPassages(tmp_path).finish()
    remove = RepeatedText(RepeatedTextPlan(RepeatedTextConfig(), table))
    assert remove.remove("长" * 200) == ("长" * 200, False)


@pytest.mark.parametrize("dedup", [True, False])
@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_a_passage_survives_the_document_that_keeps_it(
    tmp_path: Path, tokenizer_folder: Path, dedup: bool, fraction: float
) -> None:
    rng = random.Random(8)
    first, shared, later = text(rng, 600), text(rng, 60), text(rng, 70)
    near = f"{changed(rng, first)}\n{shared}"
    assert jaccard(first, near) > 0.87
    mostly_repeated = f"{first}\n{later}"
    documents = [first, near, near, changed(rng, first), mostly_repeated]
    documents += [f"{text(rng, 300)}\n{shared}", f"{text(rng, 300)}\n{later}"]
    write_lines(tmp_path / "a.jsonl", [{"text": one} for one in documents])
    out = prepare(
        tmp_path / "out", tokenizer_folder, str(tmp_path / "a.jsonl"), dedup=dedup,
        repeated_text={}, near_duplicates="drop", validation_fraction=fraction,
    )  # fmt: skip
    folders = [out / "train", out / "validation"] if fraction else [out]
    splits = [texts(tokenizer_folder, folder) for folder in folders]
    kept = [one for split in splits for one in split]
    assert sorted(kept) == sorted(
        [first, near, later, *(one.split("\n")[0] for one in documents[-2:])]
    )
    assert any({first, near} <= set(split) for split in splits)  # near-copies in one split
    dropped = TokenShards(folders[0]).manifest["dropped"]
    assert dropped == ({"duplicate": 1, "near_duplicate": 1} if dedup else {"near_duplicate": 2})


def test_a_document_that_would_be_too_short_without_what_repeats_stays_in_full(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    rng = random.Random(9)
    first, shared = text(rng, 200), text(rng, 60)
    documents = [first, f"{first}\n{shared}", f"{text(rng, 300)}\n{shared}"]
    write_lines(tmp_path / "a.jsonl", [{"text": one} for one in documents])
    out = prepare(
        tmp_path / "out", tokenizer_folder, str(tmp_path / "a.jsonl"),
        repeated_text={}, clean={"min_characters": 100},
    )  # fmt: skip
    assert texts(tokenizer_folder, out) == [*documents[:2], documents[2].split("\n")[0]]


def test_folders_of_before_stay_and_say_what_they_lack(
    tmp_path: Path, tokenizer_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = str(write_lines(tmp_path / "a.jsonl", [{"text": "春天来了，小镇的集市今天开张。"}]))
    out = prepare(tmp_path / "out", tokenizer_folder, source, repeated_text={})
    saved = json.loads((out / "prepare.json").read_text())
    del saved["request"]["repeated_text"]["version"]
    (out / "prepare.json").write_text(json.dumps(saved))
    before = contents(out)
    prepare(out, tokenizer_folder, source, repeated_text={})
    assert "lost passages whose first document was dropped" in capfd.readouterr().err
    assert contents(out) == before
    with pytest.raises(UserError, match=r"repeated_text.min_characters: 50 -> 60"):
        prepare(out, tokenizer_folder, source, repeated_text={"min_characters": 60})
    prepare(out, tokenizer_folder, source, repeated_text={}, overwrite=True)
    assert "version" in json.loads((out / "prepare.json").read_text())["request"]["repeated_text"]


def test_chats_are_refused() -> None:
    values = {"out": "o", "tokenizer": "t", "sources": "a", "repeated_text": {}}
    with pytest.raises(ValueError, match="repeated_text is for kind=text"):
        PrepareConfig.model_validate({**values, "kind": "conversation"})


def test_a_contaminated_document_is_not_the_one_that_keeps_a_passage(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    rng = random.Random(5)
    question, shared = text(rng, 60), text(rng, 80)
    write_lines(tmp_path / "exam.jsonl", [{"question": question}])
    good = f"{text(rng, 200)}\n{shared}"
    write_lines(tmp_path / "a.jsonl", [{"text": f"{question}\n{shared}"}, {"text": good}])
    out = prepare(
        tmp_path / "out", tokenizer_folder, [str(tmp_path / "a.jsonl")], validation_fraction=0,
        repeated_text={}, contamination={"exams": str(tmp_path / "exam.jsonl"), "action": "drop"},
    )  # fmt: skip
    assert texts(tokenizer_folder, out) == [good]
