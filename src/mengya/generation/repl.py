"""A conversation in the terminal, or through a pipe: a message a line, the reply in pieces, commands.

Takes what makes a `ChatSession`; reads standard input and writes standard output until /exit.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from io import TextIOWrapper
from types import FrameType
from typing import cast

import yaml
from pydantic import ValidationError
from rich.console import Console

from mengya.errors import UserError
from mengya.generation.chat_session import ChatSession
from mengya.generation.sampling import SamplingParams

HELP = """\
/reset              forget the conversation
/system [TEXT]      start over with TEXT as the system message; without TEXT, with none
/set KEY=VALUE      change sampling: max_new_tokens temperature top_k top_p min_p repetition_penalty
                    presence_penalty frequency_penalty logit_bias={ID: NUMBER} seed
/help               this list
/exit               leave (so do /quit and Ctrl-D); Ctrl-C stops a reply"""

# Control characters, which a terminal would interpret, except line break and tab.
CONTROL_CHARACTERS = {c: None for c in [*range(32), 127, *range(128, 160)] if chr(c) not in "\n\t"}


class Repl:
    """The loop of lines in and replies out."""

    def __init__(
        self,
        new_session: Callable[[str | None, SamplingParams], ChatSession],
        params: SamplingParams,
        *,
        system: str | None,
        chatting: bool,
        console: Console,
    ) -> None:
        """
        Args:
            new_session: a session that has this system message and these sampling settings.
            chatting: lines are messages of a conversation; False: beginnings of texts to continue.
            console: where notes go; replies go to standard output.
        """
        self._new_session, self._params = new_session, params
        self._chatting, self._console = chatting, console
        self._session = new_session(system, params)

    def run(self) -> None:
        """Answer every line until /exit or the end of input."""
        for stream in (sys.stdin, sys.stdout):
            if isinstance(stream, TextIOWrapper):  # whatever the locale: the text is UTF-8
                stream.reconfigure(encoding="utf-8", errors="replace")
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
            self._session = self._new_session(rest.strip() or None, self._params)
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
