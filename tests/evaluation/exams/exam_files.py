"""Small exams in the layouts of the real ones, with made-up questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LETTERS = "ABCD"


def cmmlu(folder: Path, questions: int = 12) -> Path:
    """One subject that the harness knows, one that it does not."""
    for split, count in (("dev", 3), ("test", questions)):
        (folder / split).mkdir(parents=True)
        for salt, subject in enumerate(("agronomy", "小镇 people")):
            lines = [",Question,A,B,C,D,Answer"]
            lines += [
                f'{i},"第{i}题，{salt}加{i}是几？",{i},1.50,"甲，乙",NA,{LETTERS[(i * 7 + salt) % 4]}'
                for i in range(count)
            ]
            (folder / split / f"{subject}.csv").write_text("\n".join(lines) + "\n", "utf-8-sig")
    return folder


def ceval(folder: Path) -> Path:
    for split, count in (("dev", 2), ("val", 6)):
        (folder / split).mkdir(parents=True)
        more = split == "dev"
        lines = ["id,question,A,B,C,D,answer" + (",explanation" if more else "")]
        lines += [
            f"{i},问{i}是什么？,一,二二,三三三,四,{LETTERS[i % 4]}" + (",因为" if more else "")
            for i in range(count)
        ]
        (folder / split / f"law_{split}.csv").write_text("\n".join(lines), "utf-8")
    (folder / "test").mkdir()  # as in the archive: without answers
    (folder / "test" / "law_test.csv").write_text(
        "id,question,A,B,C,D\n0,问,一,二,三,四\n", "utf-8"
    )
    return folder


def mmlu(folder: Path) -> Path:
    """Below data/, without headers; the archive has val/ too."""
    for split, count in (("dev", 5), ("val", 2), ("test", 8)):
        (folder / "data" / split).mkdir(parents=True)
        lines = [
            f'"Which is {i}, or so?",{i},"{i} or more",red,blue,{LETTERS[i % 4]}'
            for i in range(count)
        ]
        for subject in ("anatomy", "virology"):
            file = folder / "data" / split / f"{subject}_{split}.csv"
            file.write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def jsonl(path: Path, records: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8")
    return path


def gsm8k(path: Path, questions: int = 6) -> Path:
    return jsonl(
        path,
        [
            {
                "question": f"Tom has {i} cats and {i} dogs.",
                "answer": f"{i}+{i}={2 * i}\n#### {2 * i}",
            }
            for i in range(questions)
        ],
    )


def zhoblimp(path: Path) -> Path:
    return jsonl(
        path,
        [
            {
                "sentence_good": f"小猫在树下打了{i}个盹。",
                "sentence_bad": f"小猫树下在打个{i}盹了。",
            }
            for i in range(6)
        ],
    )


def xstorycloze(path: Path) -> Path:
    return jsonl(
        path,
        [
            {f"input_sentence_{n}": f"小明早上{n + i}点起床。" for n in (1, 2, 3, 4)}
            | {"sentence_quiz1": "他去了学校。", "sentence_quiz2": "桃花开了，春天来了。",
               "answer_right_ending": 1 + i % 2}
            for i in range(6)
        ],
    )  # fmt: skip


def agieval(folder: Path) -> Path:
    options = ["(A)1", "(B)two", "(C)3 or more", "(D)4", "(E)none"]
    rows = [
        {"passage": None, "question": f"How many is {i}?", "options": options, "label": "ABCDE"[i % 5],
         "answer": None, "other": {"solution": "so"}}
        for i in range(6)
    ]  # fmt: skip
    jsonl(folder / "aqua-rat.jsonl", rows)
    written = {"passage": "", "question": "1+1?", "options": None, "label": None, "answer": "2"}
    jsonl(folder / "math.jsonl", [written] * 2)
    return folder


def c3(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for split in ("dev", "test"):
        records = [
            [[f"男：春天来了{i}。", "女：桃花开了。"],
             [{"question": "什么开了？", "choice": ["桃花", "猫", f"校{i}"][: 2 + i % 2], "answer": "桃花"},
              {"question": f"第{i}个季节？", "choice": ["春天", "冬天"], "answer": "冬天"}], f"1-{i}"]
            for i in range(3)
        ]  # fmt: skip
        (folder / f"c3-d-{split}.json").write_text(json.dumps(records, ensure_ascii=False), "utf-8")
    return folder


def cmrc(path: Path) -> Path:
    paragraphs = [
        {"context": "小明每天早上七点起床，八点去学校。",
         "qas": [{"question": f"第{i}问：几点起床？", "answers": [{"text": "七点"}, {"text": "早上七点"}]}
                 for i in range(2)]}
    ]  # fmt: skip
    path.write_text(json.dumps({"version": "v1.0", "data": [{"paragraphs": paragraphs}]}), "utf-8")
    return path


def xiezhi(path: Path) -> Path:
    rows = [
        {
            "question": f"第{i}问____",
            "labels": ["历史学", "文学"],
            "answer": "二",
            "options": "一\n二\n三\n四",
        }
        for i in range(4)
    ]
    return jsonl(path, rows)


def gaokao_bench(folder: Path) -> Path:
    example = [
        {
            "question": "1．下列正确的是（ ）\nA．一 B．二 C．三 D．四\n",
            "answer": ["C"],
            "analysis": "",
        },
        {"question": "2．两空", "answer": ["A", "B"], "analysis": ""},
        {
            "question": "3．下列错误的是（ ）\nA．一 B．二 C．三 D．四\n",
            "answer": ["A"],
            "analysis": "",
        },
    ]
    folder.mkdir(parents=True)
    (folder / "2010-2022_Biology_MCQs.json").write_text(
        json.dumps({"keywords": "2010-2022_Biology_MCQs", "example": example}, ensure_ascii=False),
        "utf-8",
    )
    jsonl(folder / "notes.jsonl", [{"remark": "no question"}])
    return folder


def cmath(path: Path) -> Path:
    return jsonl(
        path,
        [{"grade": 1 + i % 2, "input": f"{i}加{i}是几？", "golden": str(2 * i)} for i in range(4)],
    )


def humaneval(path: Path) -> Path:
    return jsonl(
        path,
        [{"task_id": "HumanEval/0", "prompt": "def one():\n", "entry_point": "one",
          "canonical_solution": "    return 1\n", "test": "def check(f):\n    assert f() == 1\n"}],
    )  # fmt: skip
