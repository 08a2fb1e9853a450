"""Several full models of one server: loaded on demand, unloaded for one another, each answering as alone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from mengya.config import load_config
from mengya.errors import UserError
from mengya.generation.batch.engine import EngineConfig
from mengya.models.hf.checkpoint import write_folder
from mengya.serving.runtime.model_source import ModelSource, model_source
from mengya.serving.runtime.on_demand import OnDemandModel
from mengya.serving.serve_command import memory_lines
from mengya.serving.settings import ServerSettings
from mengya.stages.serve import ServeConfig, run
from mengya.tokenizer.load import save_tokenizer
from mengya.tokenizer.train import train_tokenizer
from tests.helpers.live_server import Running, serving, tiny_model
from tests.helpers.waiting import wait_until
from tests.serving.test_lifecycle import CHAT_PATH, ENDLESS, post, process

PROSE = "臣本布衣，躬耕于南阳，苟全性命于乱世，不求闻达于诸侯。Plain words, and more of them."
ENGINE = EngineConfig(cache_tokens=4096, prefix_reuse=False)  # counts of tokens are compared
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24}
NAMES = ("prose", "verse", "third")


def write_model(folder: Path, tokenizer: PreTrainedTokenizerFast, **changes: Any) -> Path:
    save_tokenizer(tokenizer, folder)
    write_folder(tiny_model(**changes), tokenizer, folder, torch.float32, folder)
    return folder


@pytest.fixture(scope="module")
def folders(
    tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Three models of different shapes; the first has a tokenizer of its own."""
    place = tmp_path_factory.mktemp("models")
    other = train_tokenizer([PROSE] * 2, 280, show_progress=False)
    return {
        "prose": write_model(place / "prose", other, vocab_size=280, hidden_size=40),
        "verse": write_model(place / "verse", tokenizer, num_hidden_layers=3),
        "third": write_model(place / "third", tokenizer, intermediate_size=56),
    }


def source(folder: Path, name: str) -> ModelSource:
    return model_source(
        folder, name, kind="chat", device="cpu", threads=None, dtype="auto", batch=ENGINE
    )


@pytest.fixture
def sources(folders: dict[str, Path]) -> dict[str, ModelSource]:
    return {name: source(folder, name) for name, folder in folders.items()}


def one(server: Running, name: str) -> OnDemandModel:
    return server.models.on_demand.models[name]


def cards(server: Running) -> dict[str, dict[str, Any]]:
    return {c["id"]: c["mengya"] for c in server.http.get("/v1/models").json()["data"]}


def loaded(server: Running) -> set[str]:
    return {name for name, notes in cards(server).items() if notes["loaded"]} - {"tiny"}


def loads(server: Running) -> dict[str, int]:
    found = {}
    for line in server.http.get("/metrics").text.splitlines():
        if line.startswith("mengya_model_loads_total{"):
            label, count = line.rsplit(" ", 1)
            found[label.split('"')[1]] = int(float(count))
    assert not found.pop("tiny", 0)
    return found


def say(client: openai.OpenAI, model: str) -> str:
    messages: Any = [{"role": "user", "content": "你好"}]
    reply = client.chat.completions.create(model=model, messages=messages, **GREEDY)
    return reply.choices[0].message.content or ""


def everything_said(client: openai.OpenAI, model: str) -> tuple[list[Any], list[float]]:
    """What a model answers at each address, greedily: texts and tokens; log-probabilities and a vector."""
    messages: Any = [{"role": "user", "content": "你好"}]
    schema: Any = {"type": "json_object"}
    chat = client.chat.completions
    streamed = chat.create(model=model, messages=messages, stream=True, **GREEDY)
    text = client.completions.create(model=model, prompt="春天 words", logprobs=3, **GREEDY)
    json_reply = chat.create(model=model, messages=messages, response_format=schema, **GREEDY)
    vector = client.embeddings.create(model=model, input="春天 words", encoding_format="float")
    logprobs = text.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens and logprobs.token_logprobs
    said = [
        say(client, model),
        "".join(c.choices[0].delta.content or "" for c in streamed if c.choices),
        text.choices[0].text,
        logprobs.tokens,
        text.usage,
        json_reply.choices[0].message.content,
    ]
    return said, [*logprobs.token_logprobs, *vector.data[0].embedding]


def test_each_answers_as_if_it_were_alone(
    tokenizer: PreTrainedTokenizerFast,
    folders: dict[str, Path],
    sources: dict[str, ModelSource],
) -> None:
    alone = {}
    for name in ("prose", "verse"):
        with serving(tokenizer, load=sources[name].load) as server:
            alone[name] = everything_said(server.client, name)
    assert alone["prose"][0] != alone["verse"][0]
    with serving(tokenizer, sources=sources) as server:
        before = cards(server)
        assert list(before) == ["tiny", *NAMES]
        assert before["tiny"]["loaded"] and not any(before[name]["loaded"] for name in NAMES)
        for name in ("prose", "verse", "prose"):
            said, numbers = everything_said(server.client, name)
            assert said == alone[name][0], name
            assert numbers == pytest.approx(alone[name][1], abs=1e-5)
        after = cards(server)
        assert loaded(server) == {"prose", "verse"}
        assert after["prose"] == before["prose"] | {"loaded": True}, "the estimate was wrong"
        assert server.client.models.retrieve("verse").id == "verse"
        assert loads(server) == {"prose": 1, "verse": 1}
        with pytest.raises(openai.NotFoundError):
            say(server.client, "unknown")
        metrics = server.http.get("/metrics").text
        samples = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line[0] != "#")
        taken = {name: samples[f'mengya_model_memory_bytes{{model="{name}"}}'] for name in NAMES}
        assert float(taken["prose"]) == after["prose"]["memory_bytes"] > 0 == float(taken["third"])
        assert float(samples['mengya_completion_tokens_total{model="verse"}']) > 0


def test_in_every_api(tokenizer: PreTrainedTokenizerFast, sources: dict[str, ModelSource]) -> None:
    turn: Any = [{"role": "user", "content": "你好"}]
    with serving(
        tokenizer, sources=sources, settings=ServerSettings(max_loaded_models=3)
    ) as server:

        def post(address: str, **body: Any) -> dict[str, Any]:
            answer = server.http.post(address, json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        tags = {tag["name"]: tag for tag in server.http.get("/api/tags").json()["models"]}
        shown = post("/api/show", model="prose:latest")
        assert list(tags) == ["tiny", *NAMES] and loaded(server) == set()
        assert shown["model_info"]["general.parameter_count"] * 4 == tags["prose"]["size"]
        assert shown["capabilities"] == ["completion", "tools", "thinking"]
        ids = post("/tokenize", model="prose", prompt="春天 words")["tokens"]
        assert post("/detokenize", model="prose", tokens=ids)["prompt"].endswith("春天 words")
        assert ids != post("/tokenize", prompt="春天 words")["tokens"]
        counted = post("/v1/messages/count_tokens", model="verse", messages=turn)
        assert counted["input_tokens"] > 0 and loaded(server) == {"prose", "verse"}
        said = say(server.client, "third")
        chat = {"model": "third", "messages": turn, **GREEDY}
        replied = post(
            "/v1/responses", model="third", input="你好", temperature=0, max_output_tokens=24
        )
        assert said == post("/v1/messages", **chat)["content"][0]["text"]
        assert said == replied["output"][0]["content"][0]["text"]
        options = {"temperature": 0, "num_predict": 24}
        part = post("/api/chat", model="third", messages=turn, stream=False, options=options)
        assert said == part["message"]["content"]
        assert loads(server) == {"prose": 1, "verse": 1, "third": 1}
        assert server.http.post("/api/show", json={"model": "other"}).status_code == 404


def test_at_the_same_time(
    tokenizer: PreTrainedTokenizerFast, sources: dict[str, ModelSource]
) -> None:
    """Two engines in two threads, and the base in a third."""
    with serving(tokenizer, sources=sources) as server, ThreadPoolExecutor(12) as pool:
        names = ["prose", "verse", "tiny"]
        expected = {name: say(server.client, name) for name in names}
        said = list(pool.map(lambda name: (name, say(server.client, name)), names * 4))
        assert all(text == expected[name] for name, text in said)


@pytest.mark.gpu
def test_a_load_on_cuda_while_another_model_answers(
    tokenizer: PreTrainedTokenizerFast, folders: dict[str, Path]
) -> None:
    """CUDA graphs are recorded while another thread allocates and launches."""
    verse, prose = (
        model_source(
            folders[name],
            name,
            kind="chat",
            device="cuda",
            threads=None,
            dtype="auto",
            batch=ENGINE,
        )
        for name in ("verse", "prose")
    )
    with serving(tokenizer, load=prose.load) as server:
        expected = say(server.client, "prose")
    with serving(tokenizer, load=verse.load, sources={"prose": prose}) as server:
        body = {**ENDLESS, "model": "verse", "n": 8, "stream": False, "max_tokens": 900}
        with ThreadPoolExecutor(1) as pool:
            long = pool.submit(server.http.post, CHAT_PATH, json=body)
            wait_until(
                lambda: (stats := server.service.worker.stats) is not None and stats.running == 8
            )
            assert say(server.client, "prose") == expected
            assert long.result(60).status_code == 200


def test_first_requests_at_once_load_once(
    tokenizer: PreTrainedTokenizerFast, sources: dict[str, ModelSource]
) -> None:
    with serving(tokenizer, sources=sources) as server, ThreadPoolExecutor(8) as pool:
        said = set(pool.map(lambda _: say(server.client, "verse"), range(8)))
        assert len(said) == 1 and loads(server) == {"verse": 1}


def test_the_one_not_asked_for_longest_is_unloaded(
    tokenizer: PreTrainedTokenizerFast, sources: dict[str, ModelSource]
) -> None:
    with serving(tokenizer, sources=sources) as server:
        first = say(server.client, "prose")
        say(server.client, "verse")
        say(server.client, "prose")
        service = one(server, "verse").service
        assert service is not None and service.worker.served is not None
        gone = weakref.ref(service.worker.served.model)
        del service
        say(server.client, "third")
        assert loaded(server) == {"prose", "third"}
        assert gone() is None, "it still takes memory"
        say(server.client, "verse")
        assert loaded(server) == {"third", "verse"}
        assert say(server.client, "prose") == first
        assert loads(server) == {"prose": 2, "verse": 2, "third": 1}
        assert say(server.client, "tiny")


@contextmanager
def answering(server: Running, model: str) -> Iterator[None]:
    """A stream of this model without an end, as long as the block lasts."""
    with post(server, {**ENDLESS, "model": model}) as connection:
        wait_until(lambda: one(server, model).is_loaded, 30)
        wait_until(lambda: not one(server, model).is_idle, 30)
        yield
        connection.close()


def test_an_answering_model_stays_and_nobody_jumps_the_queue(
    tokenizer: PreTrainedTokenizerFast, sources: dict[str, ModelSource]
) -> None:
    settings = ServerSettings(max_loaded_models=1)
    with (
        serving(tokenizer, sources=sources, settings=settings) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        with answering(server, "prose"):
            waiting = pool.submit(say, server.client, "verse")
            wait_until(lambda: server.service.traffic.in_flight == 2)
            behind = pool.submit(say, server.client, "prose")
            wait_until(lambda: server.service.traffic.in_flight == 3)
            time.sleep(0.3)
            assert not waiting.done() and not behind.done()
            assert loaded(server) == {"prose"}
            assert say(server.client, "tiny"), "the base waits for nobody"
        assert waiting.result(30) and behind.result(30)
        assert loaded(server) == {"prose"} and loads(server) == {"prose": 2, "verse": 1}


def gated(source: ModelSource, gate: threading.Event) -> ModelSource:
    """The same, loaded once `gate` is set."""

    def load() -> Any:
        assert gate.wait(60)
        return source.load()

    return replace(source, load=load)


def test_a_client_that_leaves_during_the_load(
    tokenizer: PreTrainedTokenizerFast, sources: dict[str, ModelSource]
) -> None:
    gate = threading.Event()
    held = {**sources, "verse": gated(sources["verse"], gate)}
    with serving(tokenizer, sources=held) as server:
        for stream in (True, False):
            connection = post(server, {**ENDLESS, "model": "verse", "stream": stream})
            wait_until(lambda: one(server, "verse").requests == 1)
            assert say(server.client, "tiny"), "others are answered meanwhile"
            connection.close()
            wait_until(lambda: one(server, "verse").requests == 0)
        wait_until(lambda: server.service.traffic.in_flight == 0)
        assert "mengya_disconnects_total 2.0" in server.http.get("/metrics").text
        gate.set()
        wait_until(lambda: one(server, "verse").is_idle, 30)
        assert say(server.client, "verse") and loads(server) == {"verse": 1}


def test_the_end_of_the_server_during_a_load(
    tokenizer: PreTrainedTokenizerFast, sources: dict[str, ModelSource]
) -> None:
    gate = threading.Event()
    held = {"verse": gated(sources["verse"], gate), "third": sources["third"]}
    settings = ServerSettings(max_loaded_models=1)
    began = time.monotonic()
    with (
        serving(tokenizer, sources=held, settings=settings) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        body = {**ENDLESS, "stream": False}
        asked = [
            pool.submit(server.http.post, CHAT_PATH, json={**body, "model": name})
            for name in ("verse", "third")  # one waits for its model, one for room
        ]
        wait_until(lambda: server.service.traffic.in_flight == 2)
        server.models.traffic.draining = True
        for one_asked in asked:
            response = one_asked.result(30)
            assert response.status_code == 503, response.text
            assert response.json()["error"]["code"] == "draining"
    assert time.monotonic() - began < 20, "the end waited for the load"
    gate.set()


LOADING = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from rich.console import Console
from mengya.generation.batch.request import EngineConfig
from mengya.serving.runtime.model_source import model_source
from mengya.serving.serve_command import run_server
from mengya.serving.settings import ServerSettings

how = {"kind": "chat", "device": "cpu", "threads": None, "dtype": "auto"}
tiny = model_source(Path(sys.argv[1]), "tiny", batch=EngineConfig(cache_tokens=4096), **how)

def load():
    print("loading", flush=True)
    while True:
        torch.ones(500, 500) @ torch.ones(500, 500)

console = Console(force_terminal=False, width=200)
run_server(tiny.load, "tiny", ServerSettings(port=0), None, console, {"slow": replace(tiny, load=load)})
"""


def test_a_signal_during_a_load_ends_the_server_in_order(folders: dict[str, Path]) -> None:
    arguments = [sys.executable, "-c", LOADING, str(folders["third"])]
    with (
        subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        assert server.stdout is not None
        url = server.stdout.readline().split()[2]
        wait_until(lambda: httpx.get(f"{url}/health").status_code == 200, 60)
        body = {**ENDLESS, "model": "slow"}
        asked = pool.submit(httpx.post, url + CHAT_PATH, json=body, timeout=60)
        assert server.stdout.readline() == "loading\n"
        server.terminate()
        assert asked.result(60).json()["error"]["code"] == "draining"
        assert server.wait(60) == 0


def test_a_model_that_cannot_be_loaded(
    tokenizer: PreTrainedTokenizerFast, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for file in folders["verse"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = folder / "model.safetensors"
    kept = weights.read_bytes()
    with serving(tokenizer, sources={"verse": source(folder, "verse")}) as server:
        for broken in (b"nothing", kept[:-5000], None):
            weights.write_bytes(broken) if broken is not None else weights.unlink()
            with pytest.raises(openai.InternalServerError) as caught:
                say(server.client, "verse")
            error: Any = caught.value.body
            assert error["code"] == "load_failed" and str(folder) in error["message"]
            assert len(error["message"].split(str(folder))[-1]) > 10, "no reason is given"
            assert say(server.client, "tiny") and not loaded(server)
        weights.write_bytes(kept)
        assert say(server.client, "verse") and loads(server) == {"verse": 1}


def test_a_fault_while_loading_is_no_secret_and_no_end(
    tokenizer: PreTrainedTokenizerFast,
    sources: dict[str, ModelSource],
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[Callable[[], Any]] = [
        fails(MemoryError()),
        fails(KeyError("q")),
        sources["verse"].load,
    ]
    flaky = replace(sources["verse"], load=lambda: calls.pop(0)())
    with serving(tokenizer, sources={"verse": flaky}) as server:
        for words in ("memory", "KeyError"):
            response = server.http.post(CHAT_PATH, json={**ENDLESS, "model": "verse"})
            assert response.status_code == 500
            assert words in response.json()["error"]["message"] and words in caplog.text
        assert say(server.client, "verse")


def fails(error: Exception) -> Callable[[], Any]:
    def load() -> Any:
        raise error

    return load


def test_a_broken_engine_is_loaded_again(
    tokenizer: PreTrainedTokenizerFast, sources: dict[str, ModelSource]
) -> None:
    with serving(tokenizer, sources=sources) as server:
        expected = say(server.client, "verse")
        service = one(server, "verse").service
        assert service is not None

        def broken() -> Any:
            raise RuntimeError("broken")

        service.served().engine.step = broken  # type: ignore[method-assign]
        body = {**ENDLESS, "model": "verse", "stream": False}
        while service.worker.state == "ready":
            response = server.http.post(CHAT_PATH, json=body)
            assert response.json()["error"]["code"] == "lost"
        assert server.http.get("/health").status_code == 200
        assert say(server.client, "verse") == expected and loads(server) == {"verse": 2}


def test_from_the_command_line(folders: dict[str, Path]) -> None:
    """SIGTERM while a model that was loaded on demand answers."""
    models = f"models={{prose: {folders['prose']}, law: {folders['third']}}}"
    with process(folders["verse"], models, "drain_seconds=20") as (server, url):
        found = {c["id"]: c["mengya"] for c in httpx.get(f"{url}/v1/models").json()["data"]}
        assert list(found) == ["verse", "prose", "law"]
        assert found["prose"]["kind"] is None and not found["prose"]["loaded"]
        body = {**ENDLESS, "model": "prose", "max_tokens": 300}
        with httpx.stream("POST", url + CHAT_PATH, json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            card = httpx.get(f"{url}/v1/models/prose").json()["mengya"]
            assert card["kind"] == "base" and card["loaded"]
            server.terminate()
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert server.wait(timeout=20) == 0


def test_memory_is_stated_before_the_start(sources: dict[str, ModelSource]) -> None:
    memory = sources["verse"].memory
    more = {"prose": sources["prose"], "third": sources["third"]}
    lines = memory_lines("verse", memory, more, 1)
    assert [line.split()[0] for line in lines] == ["verse", "prose", "third", "at"]
    assert f"{memory.weights / 2**20:.1f} MiB weights + {memory.pages / 2**20:.1f} MiB" in lines[0]
    most = memory.total + max(source.memory.total for source in more.values())
    assert f"at most {most / 2**20:.1f} MiB" in lines[-1] and "1 of 2" in lines[-1]


def test_what_is_refused_before_the_start(
    folders: dict[str, Path], adapters: dict[str, Path], tmp_path: Path
) -> None:
    def refused(*arguments: str) -> str:
        with pytest.raises(UserError) as caught:
            run(load_config(ServeConfig, None, [f"checkpoint={folders['verse']}", *arguments]))
        return str(caught.value)

    third = folders["third"]
    assert "own name" in refused(f"models.verse={third}")
    assert "own name" in refused(f"models.a={third}", "served_name=a")
    both = refused(f"models.poet={third}", f"adapters.poet={adapters['poet']}")
    assert "name of an adapter" in both
    assert "models: a" in (gone := refused(f"models.a={third}x")) and str(third) in gone
    assert "models" in refused("engine=vllm", f"models.a={third}")
    windowed = tmp_path / "windowed"
    windowed.mkdir()
    for file in third.iterdir():
        (windowed / file.name).write_bytes(file.read_bytes())
    values = json.loads((third / "config.json").read_text())
    values |= {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 0}
    (windowed / "config.json").write_text(json.dumps(values))
    assert "models: a: " in refused(f"models.a={windowed}")
    (windowed / "config.json").write_text((third / "config.json").read_text())
    (windowed / "tokenizer.json").unlink()
    assert "tokenizer" in refused(f"models.a={windowed}")
