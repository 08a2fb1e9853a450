"""`mengya identity` end to end: files, training data out of them, wordings of an endpoint's own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.stages import identity, prepare
from mengya.stages.prepare import PrepareConfig
from mengya.synthesis.identity import compose
from mengya.synthesis.identity.config import IdentityConfig
from tests.helpers.completion_server import Received, Reply, said, serving
from tests.helpers.stage_fixtures import StageFixtures


def config(out: Path, **changes: Any) -> IdentityConfig:
    values = {"out": out, "name": "小芽", "author": "春风实验室"}
    return IdentityConfig.model_validate({**values, **changes})


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_no_endpoint_is_needed_and_prepare_reads_every_line(
    tmp_path: Path, fixtures: StageFixtures, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "identity"
    identity.run(config(out))
    made, held = read(out / "conversations.jsonl"), read(out / "held_out.jsonl")
    assert (len(made), len(held), len(read(out / "questions.jsonl"))) == (340, 60, 28)
    texts = [m["content"] for c in (*made, *held) for m in c["messages"]]
    assert not [text for text in texts if re.search(r"[<>{}\[\]【】]|某某|XX", text)]
    before = (out / "conversations.jsonl").read_bytes()
    identity.run(config(out))
    assert "is up to date" in capsys.readouterr().err
    with pytest.raises(UserError, match="name: '小芽' -> '小苗'"):
        identity.run(config(out, name="小苗"))
    identity.run(config(out, name="小苗", overwrite=True))
    assert "小芽" not in (out / "conversations.jsonl").read_text("utf-8")
    identity.run(config(out, overwrite=True))
    assert (out / "conversations.jsonl").read_bytes() == before

    capsys.readouterr()
    prepare.run(  # the folder: what is held out must not become training data
        PrepareConfig.model_validate(
            {
                "kind": "conversation", "tokenizer": fixtures.tokenizer, "sources": str(out),
                "out": tmp_path / "shards",
            }
        )
    )  # fmt: skip
    manifest = TokenShards(tmp_path / "shards").manifest
    assert manifest["samples"] == 340 and manifest["bad_lines"] == 0
    assert not manifest["dropped"] and not manifest["sources"][0].get("unused_fields")
    assert "held_out.jsonl, questions.jsonl, report.json" in capsys.readouterr().err


def test_an_endpoint_adds_wordings_that_ask_the_same(tmp_path: Path) -> None:
    out = tmp_path / "identity"

    def answer(request: Received) -> Reply:
        question = re.search(r"原来的问题是：\n\n(.*?)\n\n", request.question, re.DOTALL)
        assert question
        good = f"麻烦你认真答一下：{question[1]}"
        held = json.loads((tmp_path / "held").read_text("utf-8"))
        others = ["Claude 和 Kimi 都是你吗？", held, "who are you and why?"]
        return said(json.dumps([good, *others], ensure_ascii=False))

    identity.run(config(tmp_path / "plain"))
    held = read(tmp_path / "plain/held_out.jsonl")
    authors = next(c for c in held if c["provenance"]["topics"] == ["author"])
    question = [m["content"] for m in authors["messages"] if m["role"] == "user"][-1]
    (tmp_path / "held").write_text(json.dumps(question), encoding="utf-8")
    with serving() as server:
        server.answer = answer
        endpoint = {"base_url": server.base_url, "model": "m", "key_env": None}
        settings = config(out, paraphrase=30, endpoint=endpoint)
        identity.run(settings)
        asked = len(server.requests)
        identity.run(settings)
        assert len(server.requests) == asked == 10
    made = read(out / "conversations.jsonl")
    more = [c for c in made if "reworded_by" in c["provenance"]]
    assert made[: len(made) - len(more)] == read(tmp_path / "plain/conversations.jsonl")
    assert 5 <= len(more) <= 10
    for one in more:
        question = next(m["content"] for m in one["messages"] if m["role"] == "user")
        assert question.startswith("麻烦你认真答一下：")
    dropped = json.loads((out / "report.json").read_text("utf-8"))["dropped"]
    assert {"duplicate", "other_names", "not_chinese"} <= set(dropped)


def test_more_than_the_parts_give_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose, "_TRIES", 1)  # so that equal ones are not replaced by others
    identity.run(config(tmp_path / "i", count=1000, languages=[]))
    made, held = read(tmp_path / "i/conversations.jsonl"), read(tmp_path / "i/held_out.jsonl")
    assert len(made) + len(held) < 1000
    assert "give no more than" in capsys.readouterr().err
