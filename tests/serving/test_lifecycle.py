"""Clients that go away, a server that is asked to stop, and hours of both in seconds."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch

from mengya.config import load_config
from mengya.errors import UserError
from mengya.generation.batch.engine import EngineConfig
from mengya.models.hf.checkpoint import write_folder
from mengya.serving.runtime.served import load_served
from mengya.stages.serve import ServeConfig, run
from mengya.tokenizer.load import save_tokenizer
from tests.helpers.live_server import Running, serving, tiny_model
from tests.helpers.waiting import wait_until

CHAT_PATH = "/v1/chat/completions"
# Never ends by itself: both stop tokens are all but banned.
ENDLESS: dict[str, Any] = {
    "model": "tiny", "messages": [{"role": "user", "content": "讲个故事"}], "stream": True,
    "max_tokens": -1, "logit_bias": {"0": -100, "2": -100}, "temperature": 1.0,
}  # fmt: skip


def post(server: Running, body: dict[str, Any]) -> socket.socket:
    """Send a request by hand, so that the connection can be cut at any time."""
    host, port = server.url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    connection = socket.create_connection((host, int(port)))
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection


def running(server: Running) -> int:
    stats = server.service.worker.stats
    assert stats is not None
    return stats.running + stats.waiting


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_frees_its_slot_within_a_second(tokenizer, stream: bool) -> None:
    with serving(tokenizer) as server:
        connection = post(server, {**ENDLESS, "stream": stream, "n": 3})
        wait_until(lambda: running(server) == 3)
        connection.close()
        assert wait_until(lambda: server.idle, 2) < 1
        wait_until(lambda: server.service.traffic.in_flight == 0)
        assert "mengya_disconnects_total 1.0" in server.http.get("/metrics").text


def test_a_client_that_goes_while_it_waits(tokenizer) -> None:
    with serving(tokenizer, engine=EngineConfig(max_running=1)) as server:
        first = post(server, ENDLESS)
        wait_until(lambda: running(server) == 1)
        waiting = [post(server, {**ENDLESS, "stream": stream}) for stream in (True, False)]
        wait_until(lambda: running(server) == 3)
        for connection in waiting:
            connection.close()
        assert wait_until(lambda: running(server) == 1, 2) < 1
        first.close()
        wait_until(lambda: server.idle)


async def soak(server: Running, streams: int, seconds: float) -> dict[str, int]:
    """Keep `streams` clients busy; every second request is left at a random moment."""
    ends = time.monotonic() + seconds
    counts = {"finished": 0, "left": 0}

    async def client(seed: int) -> None:
        draw = random.Random(seed)
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as http:
            while time.monotonic() < ends:
                leave = draw.random() < 0.5
                limit = draw.randint(5, 60)
                body = {**ENDLESS, "max_tokens": limit, "n": draw.randint(1, 2), "stream": True}
                async with http.stream("POST", CHAT_PATH, json=body) as response:
                    assert response.status_code == 200
                    after, last = draw.randint(0, 10), ""
                    async for line in response.aiter_lines():
                        last = line or last
                        after -= 1
                        if leave and after < 0:
                            break
                if last == "data: [DONE]":
                    counts["finished"] += 1
                else:
                    assert leave, last
                    counts["left"] += 1

    await asyncio.gather(*(client(seed) for seed in range(streams)))
    return counts


def assert_nothing_leaked(server: Running) -> None:
    wait_until(lambda: server.idle and server.service.traffic.in_flight == 0)
    assert server.service.worker.idle


def test_a_short_soak_leaks_no_slot(tokenizer) -> None:
    with serving(tokenizer, engine=EngineConfig(max_running=8)) as server:
        counts = asyncio.run(soak(server, 32, 5))
        assert counts["finished"] > 10 and counts["left"] > 10
        assert_nothing_leaked(server)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_minutes_of_64_streams(tokenizer) -> None:
    with serving(tokenizer, engine=EngineConfig(max_running=32)) as server:
        asyncio.run(soak(server, 64, 120))
        assert_nothing_leaked(server)
        warm = psutil.Process().memory_info().rss
        counts = asyncio.run(soak(server, 64, 480))
        assert_nothing_leaked(server)
        grown = psutil.Process().memory_info().rss - warm
        assert min(counts.values()) > 1000
        assert grown < 32 * 2**20, f"{grown / 2**20:.0f} MiB more after 8 minutes"


@pytest.fixture(scope="module")
def checkpoint(tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_tokenizer(tokenizer, folder)
    write_folder(tiny_model(), tokenizer, folder, torch.float32, folder)
    return folder


@contextmanager
def process(checkpoint: Path, *arguments: str, **environment: str) -> Iterator[tuple[Any, str]]:
    """`mengya serve` as a person starts it: (process, URL)."""
    done = subprocess.Popen(
        [sys.executable, "-m", "mengya", "serve", str(checkpoint), "port=0", *arguments],
        env={**os.environ, "COLUMNS": "200", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert done.stderr is not None
        said = ""
        while not (found := re.search(r"at (http://\S+)", said)):
            line = done.stderr.readline()
            assert line, said
            said += line
        wait_until(lambda: httpx.get(f"{found[1]}/health").status_code == 200, 60)
        yield done, found[1]
    finally:
        done.kill()
        done.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(checkpoint: Path, number: signal.Signals) -> None:
    with process(checkpoint, MENGYA_API_KEY="k") as (server, url):
        headers = {"Authorization": "Bearer k"}
        assert httpx.get(f"{url}/v1/models").status_code == 401
        (card,) = httpx.get(f"{url}/v1/models", headers=headers).json()["data"]
        assert card["id"] == "tiny" and card["mengya"]["kind"] == "base"
        body = {**ENDLESS, "n": 4}
        with httpx.stream(
            "POST", url + CHAT_PATH, json=body, headers=headers, timeout=60
        ) as stream:
            lines = stream.iter_lines()
            next(lines)
            server.send_signal(number)
            time.sleep(0.3)
            turned_away = httpx.get(f"{url}/health")
            assert turned_away.status_code == 503
            assert turned_away.json()["error"]["code"] == "draining"
            refused = httpx.post(url + CHAT_PATH, json=ENDLESS, headers=headers)
            assert refused.status_code == 503 and refused.headers["retry-after"]
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert server.wait(timeout=20) == 0


def test_draining_has_an_end(checkpoint: Path) -> None:
    with process(checkpoint, "drain_seconds=0.3") as (server, url):
        body = {**ENDLESS, "n": 16}
        with httpx.stream("POST", url + CHAT_PATH, json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            server.send_signal(signal.SIGTERM)
            last = [line for line in lines if line][-1]
        assert json.loads(last[6:])["error"]["code"] == "lost"
        assert server.wait(timeout=20) == 0


def test_a_second_interrupt_ends_it_at_once_without_a_word(checkpoint: Path) -> None:
    with process(checkpoint) as (server, url):
        body = {**ENDLESS, "n": 16}
        with httpx.stream("POST", url + CHAT_PATH, json=body, timeout=60) as stream:
            next(stream.iter_lines())
            server.send_signal(signal.SIGINT)
            time.sleep(0.05)
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=5) == 130
        assert server.stderr is not None and "Traceback" not in server.stderr.read()


def test_what_cannot_be_served(checkpoint: Path, tmp_path: Path, adapters: dict[str, Path]) -> None:
    def refused(*arguments: str) -> str:
        with pytest.raises(UserError) as caught:
            run(load_config(ServeConfig, None, [f"checkpoint={checkpoint}", *arguments]))
        return str(caught.value)

    assert "pip install -e '.[vllm]'" in refused("engine=vllm")
    ignored = refused("engine=vllm", "batch.max_running=9", "sampling.top_k=3", "threads=1")
    assert "engine=vllm does not support sampling, threads, batch" in ignored
    assert "no LoRA adapter" in refused(f"adapters.x={checkpoint}")
    assert "own name" in refused(f"adapters.tiny={adapters['poet']}")
    assert "does not exist" in refused(f"adapters.x={tmp_path / 'nothing'}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot listen" in refused(f"port={taken.getsockname()[1]}")


def test_threads_hold_where_the_engine_computes(checkpoint: Path, tokenizer) -> None:
    mine = torch.get_num_threads()
    load = partial(
        load_served, checkpoint, "tiny", {}, kind="base", device="cpu", threads=mine + 2, dtype="auto",
        batch=EngineConfig(pack_weights=False),  # with them it would compute in a copy
    )  # fmt: skip
    found: set[int] = set()
    try:
        with serving(tokenizer, load=load) as server:
            served = server.service.worker.served
            assert served is not None
            for layer in served.model.model.layers:
                layer.register_forward_hook(lambda *_: found.add(torch.get_num_threads()))
            server.client.completions.create(model="tiny", prompt="春", max_tokens=2)
            assert found == {mine + 2}
            found.clear()
            server.client.embeddings.create(model="tiny", input="春")
            assert found == {mine + 2}
    finally:
        torch.set_num_threads(mine)


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_threads_that_cannot_be(checkpoint: Path, value: str) -> None:
    with pytest.raises(UserError, match="threads"):
        load_config(ServeConfig, None, [f"checkpoint={checkpoint}", f"threads={value}"])


def test_a_model_that_cannot_be_loaded_ends_the_server(checkpoint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in checkpoint.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.safetensors").write_bytes(b"nothing")
    done = subprocess.run(
        [sys.executable, "-m", "mengya", "serve", str(broken), "port=0"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "error:" in done.stderr and "Traceback" not in done.stderr


LOADING = """
import torch
from rich.console import Console
from mengya.serving.serve_command import run_server
from mengya.serving.settings import ServerSettings

def load():
    while True:
        torch.ones(500, 500) @ torch.ones(500, 500)

run_server(load, "slow", ServerSettings(port=0), None, Console(force_terminal=False))
"""


def test_a_stop_while_the_model_is_loading_ends_the_server_in_order() -> None:
    arguments = [sys.executable, "-c", LOADING]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and "slow at http" in server.stdout.readline()
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0


def test_adapters_from_the_command_line(checkpoint: Path, adapters: dict[str, Path]) -> None:
    arguments = [f"adapters.{name}={folder}" for name, folder in adapters.items()]
    with process(checkpoint, "served_name=base", "kind=chat", *arguments) as (_, url):
        cards = httpx.get(f"{url}/v1/models").json()["data"]
        assert [card["id"] for card in cards] == ["base", *adapters]
        assert [card["mengya"]["adapter"] for card in cards] == [False, True, True]
        assert {card["mengya"]["kind"] for card in cards} == {"chat"}
        said = {
            card["id"]: httpx.post(
                f"{url}/v1/completions",
                json={"model": card["id"], "prompt": "春", "temperature": 0},
            ).json()["choices"][0]["text"]
            for card in cards
        }
        assert len(set(said.values())) == 3


def test_vllm_gets_the_same_folder(
    checkpoint: Path, adapters: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for vLLM's server writes down how it was called."""
    package = tmp_path / "vllm/entrypoints/openai"
    package.mkdir(parents=True)
    for folder in (tmp_path / "vllm", package.parent, package):
        (folder / "__init__.py").touch()
    (package / "api_server.py").write_text(
        "import json, os, sys, pathlib\n"
        f"pathlib.Path({str(tmp_path / 'called')!r}).write_text(\n"
        "    json.dumps([sys.argv[1:], os.environ.get('VLLM_API_KEY')]))\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MENGYA_API_KEY", "k")
    overrides = [
        f"checkpoint={checkpoint}",
        "engine=vllm",
        "dtype=bfloat16",
        "port=1234",
        f"adapters.poet={adapters['poet']}",
    ]
    run(load_config(ServeConfig, None, overrides))
    arguments, key = json.loads((tmp_path / "called").read_text())
    assert key == "k" and "k" not in arguments
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    assert options["--model"] == str(checkpoint) and options["--port"] == "1234"
    assert options["--served-model-name"] == "tiny" and options["--dtype"] == "bfloat16"
    assert arguments[-4:] == ["--max-lora-rank", "8", "--lora-modules", f"poet={adapters['poet']}"]
    rows = tmp_path / "rows"
    shutil.copytree(adapters["poet"], rows)
    config = json.loads((rows / "adapter_config.json").read_text())
    (rows / "adapter_config.json").write_text(json.dumps(config | {"trainable_token_indices": [5]}))
    with pytest.raises(UserError, match=r"trained token rows.*merge it: mengya merge"):
        run(load_config(ServeConfig, None, [*overrides, f"adapters.rows={rows}"]))
