"""Exams of any form become the same items; what holds no question is refused with what to write instead."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from mengya.data.exams.config import ExamSource
from mengya.data.exams.items import read_exams
from mengya.errors import UserError
from mengya.text.contamination.items import Item
from tests.helpers.json_lines import write_lines

ITEM = Item("镇上有几座桥？", ("一座", "两座", "三座", "四座"))


def items_of(path: Path | str, **more: object) -> list[Item]:
    (exam,) = read_exams([ExamSource.model_validate({"path": str(path), **more})])
    return exam.items


def test_layouts_of_evaluate(tmp_path: Path) -> None:
    row = ",".join([ITEM.question, *ITEM.options, "B"])
    for name, file, header in (
        ("cmmlu", "test/bridges.csv", ",Question,A,B,C,D,Answer\n0,"),
        ("ceval", "val/bridges_val.csv", "id,question,A,B,C,D,answer\n0,"),
    ):
        (tmp_path / name / file).parent.mkdir(parents=True)
        (tmp_path / name / file).write_text(header + row + "\n", "utf-8")
    (tmp_path / "ceval/test").mkdir()
    (tmp_path / "ceval/test/bridges_test.csv").write_text("id,question\n0,不问的\n", "utf-8")
    exams = read_exams([ExamSource(path=str(tmp_path / name)) for name in ("cmmlu", "ceval")])
    assert [exam.name for exam in exams] == ["cmmlu", "ceval"]
    assert [exam.items for exam in exams] == [[ITEM], [ITEM]]
    (one,), (other,) = (exam.parts for exam in exams)
    assert one.name == other.name == "bridges" and one.digest == other.digest


def test_records_of_all_forms(tmp_path: Path) -> None:
    options = list(ITEM.options)
    forms: dict[str, object] = {
        "lettered.jsonl": {"question": ITEM.question, **dict(zip("ABCD", options, strict=True))},
        "listed.json": [{"problem": ITEM.question, "options": options}],
        "lines.jsonl": {"question": ITEM.question, "options": "\n".join(options)},
        "arc.jsonl": {"question": ITEM.question, "choices": {"text": options, "label": [*"ABCD"]}},
        "c3.json": [[["段落。"], [{"question": ITEM.question, "choice": options, "answer": "一"}], "1"]],
    }  # fmt: skip
    for name, value in forms.items():
        (tmp_path / name).write_text(json.dumps(value, ensure_ascii=False) + "\n", "utf-8")
        assert items_of(tmp_path / name) == [ITEM], name
    squad = {
        "data": [{"paragraphs": [{"context": "桥。", "qas": [{"question": q} for q in "甲乙"]}]}]
    }
    (tmp_path / "squad.json").write_text(json.dumps(squad), "utf-8")
    assert items_of(tmp_path / "squad.json") == [Item("甲"), Item("乙")]
    assert items_of(tmp_path / "squad.json", field="context") == [Item("桥。")]
    with gzip.open(tmp_path / "packed.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write('{"task_id": "HumanEval/0", "prompt": "def f(): ..."}\n')
    assert items_of(tmp_path / "packed.jsonl.gz") == [Item("def f(): ...")]
    write_lines(tmp_path / "two.jsonl", [{"passage": "甲", "ask": "乙"}])
    assert items_of(tmp_path / "two.jsonl", field=["passage", "ask"]) == [Item("甲\n乙")]


def test_the_remedy_for_an_unknown_field_is_accepted(tmp_path: Path) -> None:
    write_lines(tmp_path / "ape.jsonl", [{"id": "1", "original_text": "甲乙丙", "ans": "3"}])
    with pytest.raises(UserError, match="no field question") as error:
        items_of(tmp_path / "ape.jsonl")
    (remedy,) = re.findall(r"contamination\.exams='(\{.*\})'", str(error.value))
    assert items_of(**json.loads(remedy)) == [Item("甲乙丙")]
    with pytest.raises(UserError, match="no field 'prompt'"):
        items_of(tmp_path / "ape.jsonl", field="prompt")


def test_what_is_no_exam_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none"):
        items_of(tmp_path / "none")
    (tmp_path / "bad.jsonl").write_text("{\n", "utf-8")
    with pytest.raises(UserError, match=r"bad\.jsonl:1"):
        items_of(tmp_path / "bad.jsonl")
    write_lines(tmp_path / "a.jsonl", [{"question": "甲"}])
    same = ExamSource(path=str(tmp_path / "a.jsonl"))
    with pytest.raises(UserError, match="two exams are called a") as error:
        read_exams([same, same])
    (remedy,) = re.findall(r"write (\{.*\}) in", str(error.value))
    assert len(read_exams([same, ExamSource.model_validate_json(remedy)])) == 2
    (tmp_path / "exam.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match="unpack it"):
        items_of(tmp_path / "exam.tar.gz")
