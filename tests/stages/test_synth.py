"""`mengya synth` end to end: against a scripted server with planted replies, and against `mengya serve`."""

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

from mengya.data.shards import TokenShards
from mengya.endpoint import backoff
from mengya.errors import UserError
from mengya.generation.batch.engine import BatchEngine, EngineConfig
from mengya.serving.runtime.served import Served, ServedName
from mengya.stages import prepare, synth
from mengya.stages.prepare import PrepareConfig
from mengya.synthesis.config import SynthConfig
from tests.helpers.completion_server import CompletionServer, Received, Reply, failed, said
from tests.helpers.completion_server import serving as completion_serving
from tests.helpers.json_lines import write_lines
from tests.helpers.live_server import serving as live_serving
from tests.helpers.live_server import tiny_model
from tests.helpers.stage_fixtures import StageFixtures, sentence
from tests.helpers.waiting import wait_until

FORK = multiprocessing.get_context("fork")
KEY = "sk-secret-0123456789"
PLANTED = {
    "not_grounded": 2,
    "refers_to_passage": 1,
    "refusal": 1,
    "placeholder": 1,
    "unreadable": 1,
}


@pytest.fixture
def server() -> Iterator[CompletionServer]:
    with completion_serving() as running:
        running.answer = model
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.02)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Thirty passages of two sentences each, every one different."""
    return write_lines(tmp_path / "docs/a.jsonl", [{"text": passage(i)} for i in range(30)]).parent


def passage(number: int) -> str:
    return f"{sentence(number)}\n到了晚上，{sentence(number + 100)}"


def model(request: Received) -> Reply:
    """A teacher: two good pairs of every passage, and trouble in planted places."""
    text = re.search(r"<材料>\n(.*?)\n</材料>", request.question, re.DOTALL)
    assert text, request.question
    day = int(re.findall(r"第(\d+)天", text[1])[0])
    first, second = text[1].split("\n")
    pairs = [(f"第{day}天发生了什么事？", first), (f"第{day}天晚上又发生了什么？", second)]
    planted = {
        3: ("下雨了吗？", "火星上有一座巨大的玻璃宫殿，住着会飞的鲸鱼。"),
        4: (f"第{day}天有多少人？", f"{first}共有4096人。"),
        5: ("本文讲了什么？", first),
        6: ("作者多少岁？", "抱歉，材料没有提到，我无法回答。"),
        7: ("谁写的？", "[姓名]写的这段话。"),
    }
    if day in planted:
        pairs.append(planted[day])
    if day == 8:
        return said("我不会写 JSON，真的不会。")
    listed = [{"question": q, "answer": a} for q, a in pairs]
    return said(f"好的：\n```json\n{json.dumps(listed, ensure_ascii=False)}\n```", usage=(200, 100))


def config(server: CompletionServer, documents: Path, out: Path, **changes: Any) -> SynthConfig:
    endpoint = {"base_url": server.base_url, "model": "teacher"} | changes.pop("endpoint", {})
    values = {"kind": "qa", "sources": str(documents), "out": out, "endpoint": endpoint}
    short = {"passages": {"min_characters": 5}}
    return SynthConfig.model_validate({**values, **short, **changes})


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text("utf-8"))


def everything(out: Path) -> str:
    return "".join(p.read_text("utf-8") for p in out.rglob("*") if p.is_file())


def test_questions_come_from_passages_and_what_is_wrong_is_dropped_with_its_reason(
    server: CompletionServer,
    documents: Path,
    tmp_path: Path,
    fixtures: StageFixtures,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "qa"
    settings = config(server, documents, out)
    synth.run(settings)
    made, found = read(out / "conversations.jsonl"), report(out)
    assert found["dropped"] == PLANTED and found["complete"] is True
    assert len(made) == found["conversations"] == 58
    assert made[0]["messages"][0]["content"] == "第0天发生了什么事？"
    assert made[0]["provenance"] == {
        "made_by": "mengya synth", "kind": "qa", "file": str(documents / "a.jsonl"), "line": 1,
        "model": "served", "prompt": found["request"]["prompts"][0],
    }  # fmt: skip
    assert made[-1]["provenance"]["line"] == 30
    assert found["examples"]["unreadable"][0]["line"] == 9
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"

    before, bytes_before = len(server.requests), (out / "conversations.jsonl").read_bytes()
    synth.run(settings)
    assert "is up to date" in capsys.readouterr().err and len(server.requests) == before
    with pytest.raises(UserError, match=r"filters: .*\nwrite overwrite=true"):
        synth.run(config(server, documents, out, filters={"min_grounded": 0}))
    other = config(server, documents, out, filters={"min_grounded": 0}, overwrite=True)
    synth.run(other)  # other filters on the same replies: nothing is paid again
    assert len(server.requests) == before and report(out)["conversations"] == 60
    assert (out / "conversations.jsonl").read_bytes() != bytes_before
    assert KEY not in everything(out)

    prepare.run(
        PrepareConfig.model_validate(
            {
                "kind": "conversation", "tokenizer": fixtures.tokenizer, "sources": str(out),
                "out": tmp_path / "shards",
            }
        )
    )  # fmt: skip
    manifest = TokenShards(tmp_path / "shards").manifest
    assert manifest["samples"] == 60 and manifest["bad_lines"] == 0
    assert not manifest["sources"][0].get("unused_fields")
    assert "left out" in capsys.readouterr().err


def run(settings: SynthConfig) -> None:
    synth.run(settings)


def test_a_run_that_is_killed_resumes_to_the_same_bytes_and_pays_once(
    server: CompletionServer, documents: Path, tmp_path: Path
) -> None:
    def slow(request: Received) -> Reply:
        if server.times_asked()[request.question] == 1 and len(server.requests) % 7 == 0:
            return failed(500, f"your key {KEY} is fine, but")
        reply = model(request)
        reply.delay = 0.03
        return reply

    synth.run(config(server, documents, tmp_path / "uninterrupted"))
    server.requests.clear()
    server.paid.clear()
    server.answer = slow
    out, kills = tmp_path / "killed", 2
    settings = config(server, documents, out, endpoint={"concurrency": 3})
    for kill in (8, 18, None):
        process = FORK.Process(target=run, args=(settings,))
        process.start()
        if kill is not None:
            wait_until(lambda kill=kill: len(server.requests) >= kill, 30)
            process.kill()
        process.join(60)
        assert process.exitcode == (0 if kill is None else -signal.SIGKILL)
    same = (out / "conversations.jsonl").read_bytes()
    assert same == (tmp_path / "uninterrupted/conversations.jsonl").read_bytes()
    replies = Counter(line["reply"] for line in read(out / ".requests.jsonl") if "reply" in line)
    assert len(replies) == 30 and set(replies.values()) == {1}
    assert sum(server.paid.values()) <= 30 + 3 * kills  # what was under way when it was killed
    keys: dict[str, set[str]] = {}
    for request in server.requests:
        keys.setdefault(request.question, set()).add(request.headers["idempotency-key"])
    assert all(len(names) == 1 for names in keys.values())  # a provider that looks charges once
    assert KEY not in everything(out)


def test_a_cap_leaves_what_came_and_a_higher_one_continues(
    server: CompletionServer,
    documents: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prices = {"input_price": 10, "output_price": 20, "sampling": {"max_tokens": 200}}
    out = tmp_path / "qa"
    synth.run(config(server, documents, out, endpoint={**prices, "max_cost": 0.06}))
    found = report(out)
    assert found["complete"] is False and found["traffic"]["stopped_at_cap"] is True
    assert 0 < found["traffic"]["cost"] <= 0.06 and 0 < found["conversations"] < 40
    assert "Raise endpoint.max_cost" in capsys.readouterr().err
    synth.run(config(server, documents, out, endpoint={**prices, "max_cost": 6}))
    assert report(out)["conversations"] == 58 and len(server.requests) == 30


def test_a_server_that_dies_keeps_what_was_paid(
    server: CompletionServer, documents: Path, tmp_path: Path
) -> None:
    server.answer = lambda r: model(r) if len(server.requests) <= 10 else failed(402, "no money")
    settings = config(server, documents, tmp_path / "qa")
    with pytest.raises(UserError, match="no money is left"):
        synth.run(settings)
    server.answer = model
    synth.run(settings)
    assert max(server.paid.values()) == 1 and report(tmp_path / "qa")["conversations"] == 58


def test_turns_about_a_passage_make_one_conversation(
    server: CompletionServer, documents: Path, tmp_path: Path
) -> None:
    settings = config(
        server, documents, tmp_path / "qa", turns=2, per_passage=1, show_passage=True, system="请回答。",
        passages={"min_characters": 5, "limit": 7},
    )  # fmt: skip
    synth.run(settings)
    made = read(tmp_path / "qa/conversations.jsonl")
    assert [m["role"] for m in made[0]["messages"]] == ["system", *["user", "assistant"] * 2]
    assert passage(0) in made[0]["messages"][1]["content"]
    assert passage(0) not in made[0]["messages"][3]["content"]


def self_instruct(server: CompletionServer, request: Received) -> Reply:
    system = request.body["messages"][0]["content"]
    if "设计用户" in system:
        number = len(server.requests)
        texts = [
            f"请讲讲第{number}个节日“{word}”的习俗。" for word in ("春节", "元宵", "清明", "端午")
        ]
        return said(
            json.dumps(
                [*texts, "看看这张图片里有什么？", "写一封给[姓名]的信。"], ensure_ascii=False
            )
        )
    if "扮演" in system:
        return said("用户：能再说得具体一点吗？")
    if "清明" in request.body["messages"][1]["content"]:
        return said("抱歉，我无法回答这个问题。")
    if "具体一点" in request.question and "端午" in request.body["messages"][1]["content"]:
        return said("说到一半就", finish="length")
    return said("这个节日的习俗很多，最常见的是一家人团聚吃饭。")


def test_instructions_grow_from_seeds_with_answers_and_further_turns(
    server: CompletionServer, tmp_path: Path
) -> None:
    server.answer = lambda request: self_instruct(server, request)
    values = {
        "kind": "instructions",
        "count": 16,
        "per_request": 4,
        "turns": 2,
        "near_duplicates": False,
        "out": tmp_path / "ins",
    }
    endpoint = {"base_url": server.base_url, "model": "teacher"}
    synth.run(SynthConfig.model_validate({**values, "endpoint": endpoint}))
    made, found = read(tmp_path / "ins/conversations.jsonl"), report(tmp_path / "ins")
    assert Counter(len(c["messages"]) for c in made) == {4: 8, 2: 4}  # 端午's second turn was cut
    assert found["dropped"] == {
        "refusal": 4, "cut": 4, "needs_more_than_text": 4, "placeholder": 4
    }  # fmt: skip
    assert found["complete"] and not any("清明" in str(c["messages"]) for c in made)
    before = len(server.requests)
    synth.run(
        SynthConfig.model_validate({**values, "endpoint": endpoint, "turns": 1, "overwrite": True})
    )
    assert len(server.requests) == before and report(tmp_path / "ins")["conversations"] == 12


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"kind": "qa", "sources": []}, "write sources=PATH"),
        ({"kind": "qa", "count": 5}, "count: for kind=instructions"),
        ({"kind": "instructions", "show_passage": True}, "show_passage: for kind=qa"),
        ({"kind": "qa", "prompts": {"answer": "x.md"}}, "prompts.answer is not used"),
        ({"kind": "qa", "turns": 2, "prompts": {"qa": "x.md"}}, "its prompts are qa_turns"),
        ({"kind": "qa", "endpoint": {"max_cost": 1}}, "max_cost needs both prices"),
        ({"kind": "qa", "endpoint": {"base_url": "localhost"}}, "http://127.0.0.1:8000/v1"),
        ({"kind": "qa", "endpoint": {"sampling": {"extra": {"n": 2}}}}, "n may not be set"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part)):
        SynthConfig.model_validate({"out": "x", "sources": "docs", **changes})


def test_a_key_in_the_place_of_its_name_is_not_written_anywhere(
    server: CompletionServer, documents: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        synth.run(config(server, documents, tmp_path / "qa", endpoint={"key_env": KEY}))
    assert KEY not in str(caught.value) and not (tmp_path / "qa").exists()


def test_our_own_server_is_an_endpoint(
    fixtures: StageFixtures, documents: Path, tmp_path: Path
) -> None:
    """A tiny random model, whose JSON is made valid by response_format: nonsense, but counted right."""
    from mengya.tokenizer.load import load_tokenizer

    tokenizer = load_tokenizer(fixtures.tokenizer)
    text = {"type": "string", "minLength": 1, "maxLength": 12}
    pair = {"question": text, "answer": text}
    item = {
        "type": "object",
        "properties": pair,
        "required": [*pair],
        "additionalProperties": False,
    }
    schema = {"type": "array", "items": item, "minItems": 1, "maxItems": 2}
    form = {"type": "json_schema", "json_schema": {"name": "pairs", "schema": schema}}

    def load() -> Served:
        made = tiny_model(vocab_size=len(tokenizer), max_position_embeddings=4096)
        engine = BatchEngine(made, EngineConfig())
        return Served(engine, made, tokenizer, {"tiny": ServedName("chat")}, None)

    off = {
        "min_question_characters": 0, "min_answer_characters": 0, "min_chinese": 0,
        "min_grounded": 0, "refusals": False, "loops": False,
    }  # fmt: skip
    with live_serving(tokenizer, load=load) as running:
        endpoint = {
            "base_url": f"{running.url}/v1", "model": "tiny", "key_env": None,
            "sampling": {"max_tokens": 400, "extra": {"response_format": form, "seed": 1}},
        }  # fmt: skip
        settings = SynthConfig.model_validate(
            {
                "kind": "qa", "sources": str(documents), "out": tmp_path / "qa", "filters": off,
                "passages": {"min_characters": 5, "limit": 6}, "endpoint": endpoint,
            }
        )  # fmt: skip
        synth.run(settings)
    found = report(tmp_path / "qa")
    replies = [line for line in read(tmp_path / "qa/.requests.jsonl") if "reply" in line]
    assert len(replies) == 6 and found["traffic"]["this_run"]["wrong_usage"] == 0
    assert all(reply["usage"][0] > 100 and reply["usage"][1] > 5 for reply in replies)
    assert found["conversations"] + sum(found["dropped"].values()) >= 6
    assert found["conversations"] >= 1
