"""`mengya judge` end to end, against a scripted server: judges of known nature, and servers in trouble."""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mengya import cli
from mengya.endpoint import backoff
from mengya.errors import UserError
from mengya.evaluation.judge.config import JudgeConfig
from mengya.stages import judge
from tests.helpers.completion_server import CompletionServer, Received, Reply, failed, said, serving
from tests.helpers.json_lines import write_lines
from tests.helpers.waiting import wait_until

FORK = multiprocessing.get_context("fork")
KEY = "sk-secret-0123456789"
COUNT = 20


@pytest.fixture
def server() -> Iterator[CompletionServer]:
    with serving() as running:
        running.answer = honest
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.02)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """Two files of answers; the first has the better one to three of four questions."""
    files = []
    for side in (0, 1):
        rows = [
            {
                "id": f"q{i}",
                "category": "常识" if i % 2 else "写作",
                "question": f"第{i}个问题？",
                "answer": f"{'好' if (i % 4 > 0) == (side == 0) else '差'}回答{i}",
            }
            for i in range(COUNT)
        ]
        files.append(write_lines(tmp_path / f"side{side}.jsonl", rows))
    return files[0], files[1]


def honest(request: Received) -> Reply:
    """A judge that sees which answer is good."""
    first = re.search(r"<回答甲 \w+>\n(.)", request.question)
    assert first, request.question
    verdict = "甲" if first[1] == "好" else "乙"
    return said(f"{verdict}更好。\n裁决：{verdict}", usage=(300, 20))


def config(
    server: CompletionServer, sides: tuple[Path, ...], out: Path, **changes: Any
) -> JudgeConfig:
    endpoint = {"base_url": server.base_url, "model": "judge"} | changes.pop("endpoint", {})
    values = {"sides": sides, "out": out, "endpoint": endpoint, "device": "cpu"}
    return JudgeConfig.model_validate({**values, **changes})


def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "judge.json").read_text("utf-8"))


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "records.jsonl").read_text("utf-8").splitlines()]


def value(found: dict[str, Any], name: str) -> float:
    return next(m["value"] for m in found["measurements"] if m["name"] == f"judge/{name}")


def test_an_honest_judge_is_reported_in_a_table_json_and_markdown(
    server: CompletionServer,
    sides: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "judged"
    judge.run(config(server, sides, out))
    found = report(out)
    assert (found["wins"], found["losses"], found["ties"]) == (15, 5, 0) and found["complete"]
    assert value(found, "win_rate") == 0.75 and value(found, "agreement") == 1
    assert value(found, "win_rate/常识") == 1 and value(found, "win_rate/写作") == 0.5
    assert len(server.requests) == 2 * COUNT
    assert {request.body["temperature"] for request in server.requests} == {0.0}
    printed = capsys.readouterr()
    assert "judge/win_rate" in printed.out and "75.0%" in printed.out
    assert "side0.jsonl is better in the eyes of this judge (p = 0.0" in printed.err
    page = (out / "judge.md").read_text("utf-8")
    assert "| judge/win_rate | 75.0% |" in page and "20 questions" in page
    record = records(out)[0]
    assert (
        record["question"] == "第0个问题？"
        and record["first"] == "差回答0"
        and record["score"] == 0
    )
    assert [reply["shown_first"] for reply in record["replies"]] == ["first", "second"]
    assert KEY not in "".join(p.read_text("utf-8") for p in out.rglob("*") if p.is_file())

    written = {p.name: p.read_bytes() for p in out.iterdir()}
    judge.run(config(server, sides, out))
    assert "is up to date" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in out.iterdir()} == written
    assert len(server.requests) == 2 * COUNT
    with pytest.raises(UserError, match=r"rounds: 1 -> 2\nwrite overwrite=true"):
        judge.run(config(server, sides, out, rounds=2))
    judge.run(config(server, sides, out, rounds=2, overwrite=True))
    assert len(server.requests) == 4 * COUNT and value(report(out), "repeats") == 1


def test_a_judge_that_always_takes_the_first_is_named(
    server: CompletionServer,
    sides: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.answer = lambda request: said("裁决：甲")
    judge.run(config(server, sides, tmp_path / "out"))
    found = report(tmp_path / "out")
    assert value(found, "shown_first_wins") == 1 and found["inconsistent"] == COUNT
    said_of_it = capsys.readouterr().err
    assert "take a stronger model as the judge" in said_of_it
    assert "a difference between the two is not shown" in said_of_it
    assert "contradictions: q0, q1" in (tmp_path / "out/judge.md").read_text("utf-8")


def test_nonsense_is_counted_with_its_reasons_and_never_read_as_a_verdict(
    server: CompletionServer,
    sides: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    replies = {
        "第1个": said("两个回答都很有意思，甲也许更好。"),
        "第2个": said("裁决：甲", finish="length"),
        "第3个": said(None, finish="content_filter"),
        "第5个": failed(400, "too long"),
        "第6个": said("裁决：甲\n裁决：乙"),
    }

    def judged(request: Received) -> Reply:
        number = re.search(r"第\d+个", request.question)
        assert number
        return replies.get(number[0]) or honest(request)

    server.answer = judged
    judge.run(config(server, sides, tmp_path / "out"))
    found = report(tmp_path / "out")
    assert found["bad"] == {
        "cut": 2, "no_verdict": 2, "refused": 2, "rejected": 2, "several_verdicts": 2
    }  # fmt: skip
    assert found["undecided"] == 5 and found["wins"] + found["losses"] == 15
    assert "2 cut by max_tokens" in capsys.readouterr().err


def test_troubles_of_a_server_pass_and_cost_nothing_twice(
    server: CompletionServer, sides: tuple[Path, Path], tmp_path: Path
) -> None:
    """Busy, broken, not JSON, a lost connection, a reply that does not come: each once."""
    troubles = {
        "第0个": failed(429, "slow down", retry_after="0.05"),
        "第1个": failed(500, f"key {KEY}"),
        "第2个": Reply(b"<html>oops</html>"),
        "第3个": Reply({"choices": []}, close=True),
        "第4个": Reply({}, delay=2),
    }

    def shaky(request: Received) -> Reply:
        number = re.search(r"第\d+个", request.question)
        assert number
        trouble = troubles.pop(number[0], None)
        return trouble or honest(request)

    server.answer = shaky
    judge.run(config(server, sides, tmp_path / "out", endpoint={"timeout_seconds": 1}))
    found = report(tmp_path / "out")
    assert found["complete"] and found["bad"] == {} and (found["wins"], found["losses"]) == (15, 5)
    assert sum(found["traffic"]["this_run"]["retries"].values()) == 5
    assert max(server.paid.values()) <= 2  # of a lost reply nobody knows


def run(settings: JudgeConfig) -> None:
    judge.run(settings)


def test_a_run_that_is_killed_resumes_to_the_same_bytes_and_pays_once(
    server: CompletionServer, sides: tuple[Path, Path], tmp_path: Path
) -> None:
    judge.run(config(server, sides, tmp_path / "uninterrupted"))
    server.requests.clear()

    def slow(request: Received) -> Reply:
        reply = honest(request)
        reply.delay = 0.03
        return reply

    server.answer = slow
    out = tmp_path / "killed"
    settings = config(server, sides, out, endpoint={"concurrency": 3})
    for kill in (12, None):
        process = FORK.Process(target=run, args=(settings,))
        process.start()
        if kill is not None:
            wait_until(lambda kill=kill: len(server.requests) >= kill, 30)
            process.kill()
        process.join(60)
        assert process.exitcode == (0 if kill is None else -signal.SIGKILL)
    for name in ("records.jsonl", "judge.md"):
        assert (out / name).read_bytes() == (tmp_path / "uninterrupted" / name).read_bytes()
    ledger = (out / ".requests.jsonl").read_text("utf-8").splitlines()
    paid = Counter(line["reply"] for line in map(json.loads, ledger) if "reply" in line)
    assert len(paid) == 2 * COUNT and set(paid.values()) == {1}
    assert len(server.requests) <= 2 * COUNT + 3


def test_a_cap_is_kept_and_what_came_is_judged(
    server: CompletionServer,
    sides: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, prices = tmp_path / "out", {"input_price": 10, "output_price": 20}
    endpoint = {**prices, "max_cost": 0.12, "sampling": {"max_tokens": 200}}
    judge.run(config(server, sides, out, endpoint=endpoint))
    found = report(out)
    assert not found["complete"] and found["traffic"]["cost"] <= 0.12
    assert 0 < found["undecided"] < COUNT and found["bad"]["no_reply"] > 0
    assert "raise endpoint.max_cost" in capsys.readouterr().err
    before = len(server.requests)
    judge.run(config(server, sides, out, endpoint={**endpoint, "max_cost": 9}))
    assert report(out)["complete"] and report(out)["wins"] == 15
    assert len(server.requests) == 2 * COUNT > before


def test_checkpoints_answer_once_and_an_adapter_or_a_file_may_be_the_other_side(
    server: CompletionServer, checkpoint: Path, tmp_path: Path
) -> None:
    questions = write_lines(
        tmp_path / "questions.jsonl", [{"question": "小明几点起床？"}, {"question": "春天来了"}]
    )
    server.answer = lambda request: said("裁决：平")
    out = tmp_path / "out"
    settings: dict[str, Any] = {"questions": str(questions), "answers": {"max_new_tokens": 8}}
    judge.run(config(server, (checkpoint, checkpoint), out, **settings))
    (answers,) = out.glob("answers_*.jsonl")
    assert report(out)["identical"] == 2 and not server.requests  # equal answers are not paid for
    rows = [json.loads(line) for line in answers.read_text("utf-8").splitlines()]
    assert [row["question"] for row in rows] == ["小明几点起床？", "春天来了"]
    other = write_lines(
        tmp_path / "other.jsonl",
        [{"question": row["question"], "answer": f"{row['answer']}。"} for row in rows],
    )
    judge.run(config(server, (other, checkpoint), tmp_path / "b", **settings))
    assert report(tmp_path / "b")["ties"] == 2 and len(server.requests) == 4
    judge.run(config(server, (answers, other), tmp_path / "c"))  # what was made is a side, too
    assert report(tmp_path / "c")["questions"] == 2


def test_our_questions_are_asked_where_both_sides_are_checkpoints(
    server: CompletionServer, checkpoint: Path, tmp_path: Path
) -> None:
    short = {"max_new_tokens": 2}
    judge.run(config(server, (checkpoint, checkpoint), tmp_path / "a", limit=5, answers=short))
    asked = [row["question"] for row in records(tmp_path / "a")]
    assert len(asked) == 5 and len(set(asked)) == 5 and asked[0] == "你好，请介绍一下你自己。"


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([{"question": "甲？"}], r"side.jsonl:1: `answer` must be a text, got None"),
        ([{"answer": "甲"}], r"side.jsonl:1: no `question`.*; its fields: answer"),
        ([b"{oops"], r"side.jsonl:1: not JSON"),
        ([{"question": "甲？", "answer": "一"}, {"question": "甲？", "answer": "二"}],
         r"side.jsonl:2 is a second, different answer"),
        ([{"messages": [{"role": "assistant", "content": "x"}], "answer": "一"}],
         r"the last of `messages` must be the user's"),
        ([{"question": "甲？", "answer": "一", "id": 1}, {"question": "乙？", "answer": "一", "id": 1}],
         r"two questions have the id '1'; rename one"),
        ([], r"holds no question"),
    ],
)  # fmt: skip
def test_files_that_are_wrong_are_named_by_line(
    server: CompletionServer, tmp_path: Path, rows: list[Any], part: str
) -> None:
    side = write_lines(tmp_path / "side.jsonl", rows)
    with pytest.raises(UserError, match=part):
        judge.run(config(server, (side, side), tmp_path / "out"))
    assert not server.requests


def test_what_cannot_be_judged_is_refused_before_anything_is_made(
    server: CompletionServer, sides: tuple[Path, Path], checkpoint: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fewer = write_lines(tmp_path / "fewer.jsonl", [{"question": "别的？", "answer": "一"}])
    with pytest.raises(UserError, match=r"no answer to 20 of 20 questions, the first is 'q0'"):
        judge.run(config(server, (sides[0], fewer), tmp_path / "a"))
    with pytest.raises(UserError, match=r"endpoint\.model is not set"):
        judge.run(config(server, (checkpoint, checkpoint), tmp_path / "b", endpoint={"model": ""}))
    assert not list((tmp_path / "b").glob("answers_*"))
    with pytest.raises(UserError, match="nowhere"):
        judge.run(config(server, (sides[0], Path("nowhere")), tmp_path / "c"))
    server.answer = lambda request: failed(401, f"bad key {KEY}")
    with pytest.raises(UserError, match="the key is wrong or missing") as caught:
        judge.run(config(server, sides, tmp_path / "d"))
    assert KEY not in str(caught.value)
    dead = {"base_url": "http://127.0.0.1:9/v1", "max_retries": 0}
    with pytest.raises(UserError, match=r"no reply: 4 no_connection; check endpoint\.base_url"):
        judge.run(config(server, sides, tmp_path / "e", endpoint=dead, limit=2))
    monkeypatch.setattr("sys.argv", ["mengya", "judge", str(sides[0]), "out=x"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "two are compared, 1 given: type mengya judge FIRST SECOND" in capsys.readouterr().err
