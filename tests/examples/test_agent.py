"""The agent's tools on good and hostile input, and a full round against a real server."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from transformers import PreTrainedTokenizerFast

from mengya.generation.batch.engine import BatchEngine, EngineConfig
from mengya.models.config.model import ModelConfig
from mengya.serving.runtime.served import Served, ServedName
from mengya.tokenizer.chat_template import encode_conversation
from mengya.tokenizer.train import train_tokenizer
from tests.helpers.live_server import POEM, Running, serving, tiny_model
from tests.helpers.memorized_model import memorize

FILE = Path(__file__).parents[2] / "examples/agent.py"


@pytest.fixture(scope="module")
def agent() -> ModuleType:
    spec = importlib.util.spec_from_file_location("agent", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("expression", "value"),
    [("1+2*3", 7), ("(1 + 2) * -3", -9), ("7 // 2 + 7 % 2", 4), ("2**10", 1024), ("1/4", 0.25),
     (" 3.5e2 ", 350.0), ("2**0.5", 2**0.5), ("--1", 1)],
)  # fmt: skip
def test_arithmetic(agent: ModuleType, expression: str, value: float) -> None:
    assert agent.calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    ["__import__('os').system('true')", "open('/etc/passwd')", "a", "'a'*9", "[1]", "1 if 1 else 2",
     "1/0", "0**-1", "9**9**9", "2**10001", "(-8)**0.5", "1e308*10", "True+1", "1 < 2", "x:=1", "1;2", "",
     "(" * 150, "-" * 199 + "1" + "1", "1" * 201, "\x00", "lambda: 1", "1j", "f'{1}'"],
)  # fmt: skip
def test_what_is_no_arithmetic_is_refused(agent: ModuleType, expression: str) -> None:
    try:
        value = agent.calculate(expression)
    except agent.ToolError as error:
        assert str(error)
    else:
        assert re.fullmatch(r"[-1]+", expression) and abs(value) == 11


def test_nothing_is_evaluated() -> None:
    source = FILE.read_text(encoding="utf-8")
    assert not re.search(r"\b(eval|exec|compile|subprocess|os\.system)\b *\(", source)


def test_units(agent: ModuleType) -> None:
    assert agent.convert(3.2, "km", "m") == 3200
    assert agent.convert(1, "斤", "g") == 500
    assert agent.convert(100, "C", "F") == 212
    assert agent.convert(0, "K", "C") == -273.15
    for wrong in ((1, "km", "kg"), (1, "parsec", "m"), (float("nan"), "m", "m"), (True, "m", "m")):
        with pytest.raises(agent.ToolError):
            agent.convert(*wrong)


def test_time(agent: ModuleType) -> None:
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+day$", agent.now())
    for wrong in ("Mars/Olympus", "../../etc/passwd", "/etc/passwd", ""):
        with pytest.raises(agent.ToolError):
            agent.now(wrong)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("rm", "{}"), ("calculate", "{"), ("calculate", "[]"), ("calculate", '{"x": 1}'),
     ("calculate", '{"expression": 1}'), ("calculate", "null"),
     ("convert", '{"value": "a", "source": "m", "target": "m"}')],
)  # fmt: skip
def test_broken_calls_are_reported_to_the_model(
    agent: ModuleType, name: str, arguments: str
) -> None:
    assert json.loads(agent.run_tool(name, arguments))["error"]


@pytest.fixture(scope="module")
def server(agent: ModuleType) -> Iterator[Running]:
    """A model that has memorized one conversation with the agent's tools."""
    tokenizer: PreTrainedTokenizerFast = train_tokenizer([POEM] * 2, 300, show_progress=False)
    call = {"name": "calculate", "arguments": '{"expression": "(12+30)*2"}'}
    conversation = [
        {"role": "user", "content": "算一算"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": call}],
        },
        {"role": "tool", "content": '{"result": 84}'},
        {"role": "assistant", "content": "是84。"},
    ]
    config = ModelConfig(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096,
    )  # fmt: skip
    model = memorize(config, [encode_conversation(tokenizer, conversation, agent.TOOLS)])

    def load() -> Served:
        engine = BatchEngine(model, EngineConfig())
        return Served(engine, model, tokenizer, {"tiny": ServedName("chat")})

    with serving(tokenizer, load=load) as running:
        yield running


def test_a_question_is_answered_with_a_tool(agent: ModuleType, server: Running) -> None:
    calls: list[tuple[str, str, str]] = []
    answer = agent.run_agent(
        server.client, "tiny", "算一算", temperature=0, max_tokens=300,
        on_call=lambda *call: calls.append(call),
    )  # fmt: skip
    assert calls == [("calculate", '{"expression": "(12+30)*2"}', '{"result": 84}')]
    assert answer == "是84。"


def test_no_server_a_wrong_key_and_no_room_end_in_a_few_lines(
    agent: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(url: str) -> str:
        monkeypatch.setattr(sys, "argv", ["agent.py", "算一算", "--url", f"{url}/v1"])
        with pytest.raises(SystemExit) as end:
            agent.main()
        text = str(end.value)
        assert text.count("\n") < 5 and "{" not in text
        return text

    tokenizer = train_tokenizer([POEM] * 2, 300, show_progress=False)

    def load() -> Served:
        model = tiny_model(max_position_embeddings=512)  # the context of the demo's
        return Served(
            BatchEngine(model, EngineConfig()), model, tokenizer, {"tiny": ServedName("chat")}
        )

    with serving(tokenizer, load=load, key="geheim") as running:
        assert "MENGYA_API_KEY=" in said(running.url)
        monkeypatch.setenv("MENGYA_API_KEY", "geheim")
        text = said(running.url)
        assert "context is 512 tokens" in text and "learned to call tools" in text
    text = said(running.url)  # which is gone
    assert f"no server answers at {running.url}/v1" in text
    assert "\n    mengya serve runs/my/sft\n" in text


def test_on_the_command_line_there_is_no_traceback() -> None:
    with socket.socket() as port:  # bound and not listening: nobody answers there
        port.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{port.getsockname()[1]}/v1"
        done = subprocess.run(
            [sys.executable, FILE, "算一算", "--url", url],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1 and done.stderr.startswith(f"no server answers at {url}")
    assert done.stderr.count("\n") == 3
