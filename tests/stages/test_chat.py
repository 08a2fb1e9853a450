"""`mengya chat` as a person meets it, with a model that really answers."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from mengya.config import load_config
from mengya.errors import UserError
from mengya.generation.chat_detection import is_chat_model
from mengya.generation.chat_session import ChatSession
from mengya.generation.repl import Repl
from mengya.generation.sampling import SamplingParams
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import load_causal_lm, save_hf_folder
from mengya.stages.chat import ChatConfig, run
from mengya.tokenizer.chat_template import encode_conversation
from mengya.tokenizer.load import (
    document_token_id,
    encode_texts,
    load_tokenizer,
    save_tokenizer,
)
from mengya.tokenizer.train import train_tokenizer
from tests.helpers.memorized_model import Sample, memorize
from tests.helpers.terminal import (
    ALT_ENTER,
    CTRL_C,
    CTRL_D,
    CTRL_J,
    ENTER,
    UP,
    on_terminal,
    pasted,
)

# Characters far outside the training text: each is several byte tokens.
CHATS = [
    ("你好", "你好！🙂👨‍👩‍👧龘𠮷"), ("一加一？", "二。"), ("再见", "再见！🌱"),
    ("第一行\n第二行", "两行。"),
]  # fmt: skip
PROMPT = r"lists commands(?s:.*)\n>"
TEXT = "从前有座山，山里有座庙🏯。"
ROOT = Path(__file__).parents[2]


def save(folder: Path, samples: list[Sample], tokenizer) -> Path:
    """The folder of a model that has memorized `samples`."""
    config = ModelConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
    )  # fmt: skip
    model = memorize(config, samples)
    save_hf_folder(model, config, folder, bos_token_id=0, eos_token_id=[0, 2], pad_token_id=3)
    save_tokenizer(tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(["你好，再见。一加一是二。从前有座山。"] * 2, 280, show_progress=False)


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory, tokenizer) -> Path:
    messages = [
        [{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in CHATS
    ]
    # The last chat also as a second turn, so that the history is seen.
    messages.append([*messages[0], *messages[1]])
    samples = [encode_conversation(tokenizer, m) for m in messages]
    # A song without an end, for the test that interrupts it.
    song = [{"role": "user", "content": "唱歌"}, {"role": "assistant", "content": "啦" * 30}]
    ids, mask = encode_conversation(tokenizer, song)
    samples.append(
        (ids, [m * (i != tokenizer.eos_token_id) for i, m in zip(ids, mask, strict=True)])
    )
    return save(tmp_path_factory.mktemp("chat"), samples, tokenizer)


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory, tokenizer) -> Path:
    edge = document_token_id(tokenizer)
    ids = [edge, *encode_texts(tokenizer, [TEXT])[0], edge]
    return save(tmp_path_factory.mktemp("base"), [(ids, [1] * len(ids))], tokenizer)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", **more}


@dataclass
class Talk:
    """`mengya chat` in this process: standard input and output are real streams of bytes."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, folder: Path, lines: str | bytes, *options: str) -> tuple[str, str]:
        """(standard output, notes) of a talk at temperature 0."""
        out = io.BytesIO()
        data = lines if isinstance(lines, bytes) else lines.encode()
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "ascii"))
        self.monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "ascii"))
        run(load_config(ChatConfig, None, [f"checkpoint={folder}", "temperature=0", *options]))
        sys.stdout.flush()
        return out.getvalue().decode(), " ".join(self.capsys.readouterr().err.split())


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Talk:
    return Talk(monkeypatch, capsys)


def test_a_pipe_gives_a_reply_a_line_and_complete_characters(chat_model: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mengya", "chat", str(chat_model), "temperature=0"],
        input="你好\n\n一加一？\n".encode(), capture_output=True, timeout=120,
        env=environment(LC_ALL="C", PYTHONIOENCODING="ascii"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == f"{CHATS[0][1]}\n{CHATS[1][1]}\n"


def test_commands(chat_model: Path, talk: Talk) -> None:
    commands = (
        "/help", "/reset", "/system 你是猫", "/system", "/set temperature=2", "/set temperature=0",
        "/set top_p=7", "/set nonsense=1", "/nonsense", "再见", "/exit", "你好",
    )  # fmt: skip
    said, notes = talk(chat_model, "\n".join(commands))
    assert said == f"{CHATS[2][1]}\n"  # nothing after /exit
    for word in (
        "/system [TEXT]", "forgotten", "a new conversation", "temperature = 2.0",
        "/set top_p=7: Input should be less than or equal to 1", "Extra inputs", "/nonsense is no command",
    ):  # fmt: skip
        assert word in notes


def test_a_message_too_long_is_reported_and_the_talk_continues(
    chat_model: Path, talk: Talk
) -> None:
    said, notes = talk(chat_model, "长" * 3000 + "\n你好\n")
    assert "shorten it" in notes and said.strip() == CHATS[0][1]


def test_streaming_says_the_same_and_takes_any_length(chat_model: Path, talk: Talk) -> None:
    said, notes = talk(chat_model, "你好\n", "streaming={}")
    assert said.strip() == CHATS[0][1]
    long = "长" * 3000  # three byte tokens each, twice the model's context
    said, notes = talk(chat_model, f"{long}\n", "streaming.window=512", "max_new_tokens=4")
    assert said.strip() and "shorten" not in notes and "dropped" not in notes
    with pytest.raises(UserError, match=r"write streaming\.window="):
        talk(chat_model, "你好\n", "streaming.window=4096")


def test_a_base_model_continues_the_text(base_model: Path, talk: Talk) -> None:
    assert talk(base_model, "从前有座\n")[0] == f"{TEXT.removeprefix('从前有座')}\n"


def test_auto_tells_a_chat_model_from_a_base_model(
    chat_model: Path, base_model: Path, tokenizer
) -> None:
    assert is_chat_model(load_causal_lm(chat_model).eval(), tokenizer)
    assert not is_chat_model(load_causal_lm(base_model).eval(), tokenizer)


def test_mode_can_be_forced(chat_model: Path, talk: Talk) -> None:
    said, _ = talk(chat_model, "你好\n", "mode=completion", "max_new_tokens=5")
    assert CHATS[0][1] not in said


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda p: p.rename(p.with_name("model-b")), "did you mean"),
        (lambda p: (p / "config.json").unlink(), "no config.json"),
        (lambda p: (p / "tokenizer.json").write_text("{"), "cannot load a tokenizer"),
        (lambda p: (p / "model.safetensors").write_bytes(b"damaged"), "damaged"),
        (lambda p: (p / "model.safetensors").unlink(), "model.safetensors"),
    ],
)  # fmt: skip
def test_broken_checkpoints_and_typos_end_in_one_message(
    chat_model: Path, tmp_path: Path, make, word: str
) -> None:
    folder = tmp_path / "model-a"
    folder.mkdir()
    for file in chat_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    make(folder)
    with pytest.raises(UserError) as error:
        run(load_config(ChatConfig, None, [f"checkpoint={folder}"]))
    assert word in str(error.value)


def test_an_error_on_the_command_line_has_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mengya", "chat", str(tmp_path / "typo")],
        capture_output=True, text=True, timeout=120, env=environment(),
    )  # fmt: skip
    assert done.returncode == 2 and "does not exist" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def chat_on_terminal(folder: Path, *options: str, **more: str):
    command = [sys.executable, "-m", "mengya", "chat", str(folder), "temperature=0", *options]
    return on_terminal(command, environment(**more))


def test_on_a_terminal_in_the_c_locale(chat_model: Path, base_model: Path, tmp_path: Path) -> None:
    """Chinese, pastes and messages of several lines, Ctrl-C, and what the next session recalls."""
    more = {"LC_ALL": "C", "TERM": "xterm-256color", "XDG_STATE_HOME": str(tmp_path)}
    history = tmp_path / "mengya/chat_history.jsonl"
    with chat_on_terminal(chat_model, "max_new_tokens=4000", **more) as terminal:
        terminal.wait_for(r"/help lists commands")
        terminal.wait_for(rf"kept in {history}\n\(history=false keeps nothing\)")
        terminal.wait_for(PROMPT)
        for keys in (pasted("第一行\n第二行"), f"第一行{CTRL_J}第二行", f"第一行{ALT_ENTER}第二行"):
            start = terminal.type(keys)
            terminal.wait_for("第二行", start)
            start = terminal.type(ENTER)
            terminal.wait_for("两行。\\s+>", start)
            start = terminal.type(f"/reset{ENTER}")
            terminal.wait_for("forgotten\\s+>", start)
        start = terminal.type(f"唱歌{ENTER}")
        terminal.wait_for("啦啦啦", start)
        terminal.type(pasted("第一行\n第二行") + ENTER)  # ahead: after the reply it is one message
        terminal.type(CTRL_C)
        terminal.wait_for("stopped(?s:.*)两行。\\s+>", start)
        assert terminal.seen[start:].count("啦") < 2000
        start = terminal.type(f"没打完{CTRL_C}")  # at the prompt: a hint, not an end
        terminal.wait_for("Ctrl-D leaves\\)\\s+>", start)
        start = terminal.type(f"/help{ENTER}")
        terminal.wait_for("makes it a message", start)
        assert max(map(len, terminal.seen[start:].splitlines())) < 80
        terminal.type(CTRL_D)
        assert terminal.process.wait(30) == 0
    assert history.stat().st_mode & 0o777 == 0o600
    with chat_on_terminal(base_model, **more) as terminal:
        terminal.wait_for(r"completion: .*/help lists commands")
        terminal.wait_for(PROMPT)
        for recalled in ("/help", "第二行"):
            start = terminal.type(UP)
            terminal.wait_for(recalled, start)
        start = terminal.type(CTRL_C)
        terminal.wait_for("Ctrl-D leaves", start)
        start = terminal.type(f"从前有座{ENTER}/exit{ENTER}")  # the second is typed ahead
        terminal.wait_for(TEXT.removeprefix("从前有座"), start)
        assert terminal.process.wait(30) == 0


@pytest.mark.parametrize("data", ["\ufeff你好\n".encode(), "你好\n".encode("utf-16")])
def test_a_byte_order_mark_in_a_pipe(chat_model: Path, talk: Talk, data: bytes) -> None:
    assert talk(chat_model, data)[0] == f"{CHATS[0][1]}\n"


def test_several_lines_that_begin_with_a_slash_are_a_message(chat_model: Path) -> None:
    model, tokenizer = load_causal_lm(chat_model).eval(), load_tokenizer(chat_model)
    session = ChatSession(model, tokenizer, SamplingParams(temperature=0, max_new_tokens=4))
    said: list[str | None] = []

    def new_session(system: str | None, params: SamplingParams) -> ChatSession:
        said.append(system)
        return session

    params = SamplingParams(temperature=0)
    repl = Repl(new_session, params, system=None, chatting=True, console=Console(stderr=True))
    repl.run(["/usr/bin\n/etc", "/system 第一行\n第二行", " /reset", "/reset"])
    assert said == [None, "第一行\n第二行"]
    assert session.messages == []
    repl.run(["/usr/bin\n/etc", " /reset"])
    asked = [message["content"] for message in session.messages[::2]]
    assert asked == ["/usr/bin\n/etc", "/reset"]


def test_escape_sequences_of_a_model_do_not_reach_the_terminal(
    tmp_path: Path, tokenizer, talk: Talk
) -> None:
    messages = [
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "好\x1b[31m\x07红\t"},
    ]
    folder = save(tmp_path, [encode_conversation(tokenizer, messages)], tokenizer)
    assert talk(folder, "你好\n", "mode=chat")[0] == "好[31m红\t\n"


def test_sampling_options_are_keys_of_the_verb(tmp_path: Path) -> None:
    config = load_config(
        ChatConfig,
        None,
        ["checkpoint=x", "temperature=0.3", "top_k=5", "logit_bias.7=-100", "min_p=0.1"],
    )
    assert (config.temperature, config.top_k, config.mode) == (0.3, 5, "auto")
    assert (config.logit_bias, config.min_p) == ({7: -100.0}, 0.1)
