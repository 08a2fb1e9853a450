"""Exam items in `mengya prepare`: found in every kind, reported, dropped, the same however it is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mengya.data.prepare.build import Build
from mengya.data.shards import TokenShards
from mengya.errors import UserError
from tests.data.prepare.test_prepare import contents, prepare, texts
from tests.helpers.json_lines import write_lines

QUESTIONS = [
    f"小满第{i}天在集市上用{i}7元买了{i}3把雨伞和几只风筝，问每只风筝多少元？" for i in range(1, 7)
]


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    items = [{"question": q, "A": "一元", "B": "两元", "C": "三元", "D": "四元"} for q in QUESTIONS]
    return write_lines(tmp_path / "exam.jsonl", [*items, {"question": "对吗"}])


def check(exam: Path, **more: Any) -> dict[str, Any]:
    return {"exams": [str(exam)], **more}


def planted(seed: int = 0) -> list[dict[str, str]]:
    """Items 0 to 2 among other texts: 0 twice, 1 over several lines."""
    records = texts(200, seed)
    for at, item in ((10, 0), (77, 1), (150, 0), (180, 2)):
        question = "\n".join(QUESTIONS[item][i : i + 9] for i in range(0, 60, 9))
        records[at] = {"text": f"{records[at]['text']}\n{question}\n答：{at}元。"}
    return records


def found(out: Path) -> list[dict[str, Any]]:
    lines = (out / "contamination.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_report_says_what_stands_where(
    tmp_path: Path, tokenizer_folder: Path, exam: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_lines(tmp_path / "a.jsonl", planted())
    out = prepare(tmp_path / "out", tokenizer_folder, [str(data)], contamination=check(exam))
    places = [[place["line"] for place in line["places"]] for line in found(out)]
    assert places == [[11, 151], [78], [181]]
    first = found(out)[0]
    assert first["exam"] == "exam" and first["part"] == "exam.jsonl" and first["item"] == 1
    assert first["question"] == QUESTIONS[0] and first["documents"] == 2
    assert first["places"][0]["file"] == str(data)
    manifest = TokenShards(out).manifest
    assert manifest["samples"] == 200
    (summary,) = manifest["contamination"]["exams"]
    assert (summary["items"], summary["contaminated"], summary["documents"]) == (7, 3, 4)
    assert len(summary["keys"]) == 3 and len(summary["unchecked_keys"]) == 1
    assert QUESTIONS[0] not in json.dumps(manifest, ensure_ascii=False)
    said = " ".join(capsys.readouterr().err.split())
    assert "exam exam: 3 of 7 items found, in 4 documents" in said


def test_dropped_documents_are_counted_and_leave_no_trace_in_the_shards(
    tmp_path: Path, tokenizer_folder: Path, exam: Path
) -> None:
    data = write_lines(tmp_path / "a.jsonl", planted())
    settings = check(exam, action="drop")
    out = prepare(tmp_path / "out", tokenizer_folder, [str(data)], contamination=settings)
    manifest = TokenShards(out).manifest
    assert manifest["samples"] == 196 and manifest["dropped"] == {"contaminated": 4}
    assert manifest["sources"][0]["dropped"] == {"contaminated": 4}
    (summary,) = manifest["contamination"]["exams"]
    assert summary["keys"] == [] and summary["contaminated"] == 0
    assert (summary["dropped_items"], summary["dropped_documents"]) == (3, 4)
    assert [line["documents"] for line in found(out)] == [2, 1, 1]


def test_all_turns_of_chats_and_both_sides_of_pairs_are_looked_at(
    tmp_path: Path, tokenizer_folder: Path, exam: Path
) -> None:
    def turns(*contents: str) -> list[dict[str, str]]:
        roles = ("system", "user", "assistant", "user", "assistant")
        return [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]

    inner = json.dumps({"question": QUESTIONS[3], "answer": "两元"}, ensure_ascii=False)
    chats = [
        turns("简短。", "你好", "好", "再说一次", QUESTIONS[0]),
        turns(QUESTIONS[1], "你好呀", "好"),
        turns("简短。", f"读 JSON：{inner}", "读了"),
        turns("简短。", "你是谁", "小满"),
    ]
    data = write_lines(tmp_path / "chats.jsonl", [{"messages": chat} for chat in chats])
    sources = [str(data)]
    out = prepare(
        tmp_path / "out", tokenizer_folder, sources, kind="conversation", contamination=check(exam)
    )
    assert [(line["item"], line["places"][0]["line"]) for line in found(out)] == [
        (1, 1), (2, 2), (4, 3)
    ]  # fmt: skip
    pair = {"prompt": "出一道题", "chosen": "不出。", "rejected": QUESTIONS[5]}
    data = write_lines(tmp_path / "pairs.jsonl", [pair, {**pair, "rejected": "好。"}])
    sources, settings = [str(data)], check(exam, action="drop")
    out = prepare(
        tmp_path / "pairs", tokenizer_folder, sources, kind="preference", contamination=settings
    )
    assert TokenShards(out).manifest["dropped"] == {"contaminated": 1}
    assert [line["item"] for line in found(out)] == [6]


@pytest.mark.parametrize("action", ["report", "drop"])
def test_workers_and_a_resume_change_nothing(
    tmp_path: Path,
    tokenizer_folder: Path,
    exam: Path,
    monkeypatch: pytest.MonkeyPatch,
    action: str,
) -> None:
    monkeypatch.setattr("mengya.data.ingest.reading.records.CHUNK_RECORDS", 40)
    monkeypatch.setattr("mengya.data.prepare.pipeline.COMMIT_SECONDS", 0)
    sources = [str(write_lines(tmp_path / f"{i}.jsonl", planted(i))) for i in range(2)]
    settings = {"contamination": check(exam, action=action), "validation_fraction": 0.2}
    uninterrupted = prepare(tmp_path / "one", tokenizer_folder, sources, **settings)
    if action == "report":
        two = prepare(tmp_path / "two", tokenizer_folder, sources, workers=2, **settings)
        assert contents(two) == contents(uninterrupted)
    add, added = Build.add, 0

    def stopping_add(build: Build, chunk: Any) -> None:
        nonlocal added
        added += 1
        add(build, chunk)
        if added == 4:  # after the hits were written, before they are committed
            assert build.exam_hits is not None
            build.exam_hits.commit()
            raise KeyboardInterrupt

    monkeypatch.setattr(Build, "add", stopping_add)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "out", tokenizer_folder, sources, **settings)
    resumed = prepare(tmp_path / "out", tokenizer_folder, sources, **settings)
    assert added > 4 and contents(resumed) == contents(uninterrupted)
    splits = [
        TokenShards(uninterrupted / s).manifest["contamination"] for s in ("train", "validation")
    ]
    documents = [split["exams"][0]["documents"] for split in splits]
    assert sum(documents) == (8 if action == "report" else 0)


def test_the_check_is_part_of_what_the_shards_were_made_of(
    tmp_path: Path, tokenizer_folder: Path, exam: Path
) -> None:
    sources = [str(write_lines(tmp_path / "a.jsonl", texts(20)))]
    plain = prepare(tmp_path / "out", tokenizer_folder, sources)
    assert "contamination" not in json.loads((plain / "prepare.json").read_text("utf-8"))["request"]
    assert not (plain / "contamination.jsonl").exists()
    with pytest.raises(UserError, match="contamination"):
        prepare(plain, tokenizer_folder, sources, contamination=check(exam))
    checked = prepare(plain, tokenizer_folder, sources, contamination=check(exam), overwrite=True)
    assert found(checked) == []
    moved = exam.rename(tmp_path / "moved.jsonl")
    named = {"exams": [{"path": str(moved), "name": "exam"}]}
    prepare(plain, tokenizer_folder, sources, contamination=named)  # the same exam: up to date
    write_lines(moved, [{"question": QUESTIONS[0]}])
    with pytest.raises(UserError, match="contamination"):
        prepare(plain, tokenizer_folder, sources, contamination=named)
    with pytest.raises(UserError, match="not there"):
        prepare(tmp_path / "new", tokenizer_folder, sources, contamination=check(Path("not there")))
