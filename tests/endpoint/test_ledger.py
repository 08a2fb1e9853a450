"""The ledger after crashes of every kind, and a process that is killed again and again."""

from __future__ import annotations

import json
import multiprocessing
import signal
from pathlib import Path

import pytest

from mengya.endpoint.client import Endpoint
from mengya.endpoint.config import EndpointConfig
from mengya.endpoint.ledger import Ledger
from mengya.endpoint.messages import Completion, Prompt, Usage
from mengya.errors import UserError
from tests.helpers.completion_server import Reply, said, serving
from tests.helpers.waiting import wait_until

FORK = multiprocessing.get_context("fork")  # a child that need not import everything again


def ask(base_url: str, path: Path) -> None:
    """In a process of its own: sixty questions, four at a time."""
    config = EndpointConfig(base_url=base_url, model="m", concurrency=4)
    with Endpoint(config, path) as endpoint:
        asked = (Prompt(str(n), [{"role": "user", "content": str(n)}]) for n in range(60))
        assert len(list(endpoint.complete(asked))) == 60


def completion(name: str, text: str = "好") -> Completion:
    return Completion(name, text, usage=Usage(3, 4), model="m")


def test_replies_are_read_back_with_what_was_lost(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        for key in "abcde":
            ledger.sent(key, Usage(10, 100))
        ledger.replied("a", completion("first", "一\u2028二\n三"))
        ledger.replied("b", Completion("second", "", "refused", "no", Usage(1, 0)))
        ledger.over("c", charged=False)
        ledger.over("d", charged=True)
    with Ledger(path) as ledger:
        assert ledger.reply("a") == completion("first", "一\u2028二\n三")
        assert ledger.reply("b") == Completion("second", "", "refused", "no", Usage(1, 0))
        assert ledger.reply("c") is None and "d" not in ledger and len(ledger) == 2
        assert ledger.spent == Usage(4, 4)
        assert (ledger.lost, ledger.uncertain) == (2, Usage(20, 200))  # d, and e of the crash


def test_a_request_that_two_crashes_lost_counts_twice(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    for _ in range(2):
        with Ledger(path) as ledger:
            ledger.sent("a", Usage(10, 100))
    with Ledger(path) as ledger:
        ledger.sent("a", Usage(10, 100))
        ledger.replied("a", completion("a"))
    with Ledger(path) as ledger:
        assert ledger.lost == 2 and ledger.reply("a") is not None


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_last_line_that_a_crash_cut_short_is_removed(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        for key in "ab":
            ledger.sent(key, Usage(10, 100))
            ledger.replied(key, completion(key))
    path.write_bytes(path.read_bytes()[:-cut])
    with Ledger(path) as ledger:
        assert "a" in ledger and "b" not in ledger and ledger.lost == 1
        ledger.sent("b", Usage(10, 100))
        ledger.replied("b", completion("b"))
    with Ledger(path) as ledger:
        assert ledger.reply("b") == completion("b") and len(ledger) == 2


def test_another_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    path.write_text('{"sent": "a", "most": [1, 2]}\nnonsense\n{"over": "a"}\n')
    with pytest.raises(UserError, match=r"l\.jsonl:2 .*remove that line"):
        Ledger(path)


def test_a_run_that_is_killed_again_and_again_pays_once(tmp_path: Path) -> None:
    """What the ledger has is never asked again; what was under way is, with the same idempotency key."""
    path = tmp_path / "l.jsonl"
    with serving() as server:
        server.answer = lambda r: Reply(said(f"答{r.question}").body, delay=0.02)
        for kill in (14, 28, None):
            process = FORK.Process(target=ask, args=(server.base_url, path))
            process.start()
            if kill is not None:
                wait_until(lambda kill=kill: len(server.requests) >= kill, 30)
                process.kill()
            process.join(60)
            assert process.exitcode == (0 if kill is None else -signal.SIGKILL)
        names: dict[str, set[str]] = {}
        for request in server.requests:
            names.setdefault(request.question, set()).add(request.headers["idempotency-key"])
    assert len(names) == 60 and all(len(keys) == 1 for keys in names.values())
    ids = [json.loads(line).get("id") for line in path.read_text().splitlines()]
    assert sorted(filter(None, ids), key=int) == [str(n) for n in range(60)]
    with Ledger(path) as ledger:  # asked again is what was under way at a kill, and nothing else
        assert len(server.requests) - 60 <= ledger.lost <= 8
