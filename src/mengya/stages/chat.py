"""`mengya chat CHECKPOINT`: talk with a model in the terminal, or through a pipe, a line a turn."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Literal, cast

import yaml
from pydantic import ValidationError
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.generation.chat_detection import has_learnt_to_chat
from mengya.generation.chat_session import ChatSession
from mengya.generation.sampling import SamplingParams
from mengya.models.cache.streaming import StreamingConfig
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.open_checkpoint import DtypeName, open_checkpoint, pick_dtype
from mengya.runtime.device import DeviceName, init_device

HELP = """\
/reset              forget the conversation
/system [TEXT]      begin anew with TEXT as the system message; without TEXT, with none
/set KEY=VALUE      change sampling: max_new_tokens temperature top_k top_p min_p repetition_penalty
                    presence_penalty frequency_penalty logit_bias={ID: NUMBER} seed
/help               this list
/exit               leave (so do /quit and Ctrl-D); Ctrl-C stops a reply"""

# What a terminal would obey instead of show: control characters but line break and tab.
CONTROL_CHARACTERS = {c: None for c in [*range(32), 127, *range(128, 160)] if chr(c) not in "\n\t"}


class ChatConfig(SamplingParams):
    checkpoint: Path
    """Model folder, adapter folder, or run folder (its best, else latest, checkpoint)."""
    mode: Literal["auto", "chat", "completion"] = "auto"
    """chat: turns in the chat template. completion: go on with the text typed, for base models.
    auto: chat when the model ends turns, in short exchanges shown to it or in its own replies."""
    system: str | None = None
    """System message that opens the conversation."""
    enable_thinking: bool | None = None
    """false asks for answers without reasoning, where the chat template knows how."""
    streaming: StreamingConfig | None = None
    """Endless conversations: old tokens go out of sight instead of old turns being dropped when the
    context is full. streaming={} takes the defaults."""
    device: DeviceName = "auto"
    """auto takes CUDA where there is one."""
    dtype: DtypeName = "auto"
    """dtype of the weights; auto: float32 on CPU, bfloat16 elsewhere."""


def run(config: ChatConfig) -> None:
    console = Console(stderr=True)
    device = init_device(config.device)
    model, tokenizer = open_checkpoint(config.checkpoint, device, pick_dtype(config.dtype, device))
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, TextIOWrapper):  # whatever the locale: the text is UTF-8
            stream.reconfigure(encoding="utf-8", errors="replace")
    chatting = config.mode == "chat" or (
        config.mode == "auto" and has_learnt_to_chat(model, tokenizer)
    )
    if sys.stdin.isatty():
        what = "chat" if chatting else "completion: the model goes on with what you type"
        console.print(f"{config.checkpoint} ({what}); /help lists commands", markup=False)
    Conversation(config, model, tokenizer, chatting, console).run()


class Conversation:
    """The loop of lines in and replies out."""

    def __init__(
        self,
        config: ChatConfig,
        model: CausalLM,
        tokenizer: PreTrainedTokenizerFast,
        chatting: bool,
        console: Console,
    ) -> None:
        self._config, self._model, self._tokenizer = config, model, tokenizer
        self._chatting, self._console = chatting, console
        self._params = SamplingParams(
            **{name: getattr(config, name) for name in SamplingParams.model_fields}
        )
        self._session = self._new_session(config.system)

    def run(self) -> None:
        """Answer every line until /exit or the end of input."""
        for line in _lines():
            text = line.strip()
            if text in ("/exit", "/quit"):
                return
            if text.startswith("/"):
                self._command(*text.partition(" ")[::2])
            elif text:
                self._answer(line if not self._chatting else text)

    def _answer(self, text: str) -> None:
        try:
            answer = self._session.reply if self._chatting else self._session.complete
            pieces = cast(Generator[str, None, None], answer(text))
            if self._session.notice:
                self._note(self._session.notice)
            with closing(pieces), _interruptible() as stopped:
                for piece in pieces:
                    _write(piece.translate(CONTROL_CHARACTERS))
                    if stopped:
                        break
            _write("\n")
            if stopped:
                self._note("stopped")
        except UserError as error:
            self._note(str(error))

    def _command(self, name: str, rest: str) -> None:
        if name == "/reset":
            self._session.reset()
            self._note("forgotten")
        elif name == "/system":
            self._session = self._new_session(rest.strip() or None)
            self._note("a new conversation")
        elif name == "/set":
            self._set(rest)
        elif name == "/help":
            self._note(HELP)
        else:
            self._note(f"{name} is no command; /help lists them")

    def _set(self, assignment: str) -> None:
        key, _, value = (part.strip() for part in assignment.partition("="))
        try:
            changed = {**self._params.model_dump(), key: yaml.safe_load(value)}
            self._params = SamplingParams.model_validate(changed)
        except (ValidationError, yaml.YAMLError) as error:
            reasons = (
                [e["msg"] for e in error.errors()] if isinstance(error, ValidationError) else []
            )
            self._note(f"/set {assignment}: {'; '.join(reasons) or error}")
            return
        self._session.params = self._params
        self._note(f"{key} = {getattr(self._params, key)}")

    def _new_session(self, system: str | None) -> ChatSession:
        return ChatSession(
            self._model,
            self._tokenizer,
            self._params,
            system=system,
            enable_thinking=self._config.enable_thinking,
            streaming=self._config.streaming,
        )

    def _note(self, text: str) -> None:
        self._console.print(text, style="dim", markup=False, highlight=False)


def _lines() -> Iterator[str]:
    """Lines of standard input; with a prompt and line editing on a terminal."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            yield line.rstrip("\r\n")
        return
    with suppress(ImportError):  # absent on Windows, whose console edits lines itself
        import readline  # noqa: F401 (gives `input` history and editing)
    while True:
        try:
            yield input("> ")
        except KeyboardInterrupt:
            _write("\n(/exit or Ctrl-D leaves)\n")
        except EOFError:
            _write("\n")
            return


@contextmanager
def _interruptible() -> Iterator[list[bool]]:
    """While inside, Ctrl-C fills the list and raises nothing: the model finishes its token."""
    stopped: list[bool] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        stopped.append(True)

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, previous)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
