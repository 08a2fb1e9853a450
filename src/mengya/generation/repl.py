"""A conversation in the terminal, or through a pipe: messages and commands in, the reply in pieces.

Takes messages and what makes a `ChatSession`; writes standard output until /exit.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
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
/system [TEXT]      start over with TEXT as the system message; without, none
/set KEY=VALUE      change sampling; KEY is one of
                      max_new_tokens temperature top_k top_p min_p
                      repetition_penalty presence_penalty frequency_penalty
                      logit_bias={ID: NUMBER} seed
/help               this list
/exit               leave (so do /quit and Ctrl-D); Ctrl-C stops a reply
Enter sends, Alt-Enter or Ctrl-J begins a new line; a paste is one message.
Up and Ctrl-R recall what was typed. A space before / makes it a message."""

# Control characters, which a terminal would interpret, except line break and tab.
CONTROL_CHARACTERS = {c: None for c in [*range(32), 127, *range(128, 160)] if chr(c) not in "\n\t"}


class Repl:
    """The loop of messages in and replies out."""

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
            chatting: input is messages of a conversation; False: beginnings of texts to continue.
            console: where notes go; replies go to standard output.
        """
        self._new_session, self._params = new_session, params
        self._chatting, self._console = chatting, console
        self._session = new_session(system, params)

    def run(self, messages: Iterable[str]) -> None:
        """Answer every message until /exit or the end of them."""
        for message in messages:
            text = message.strip()
            name, *rest = text.split(maxsplit=1) or [""]
            # Several lines that begin with a slash are a path or code; a system message may have several.
            if message.startswith("/") and ("\n" not in text or name == "/system"):
                if name in ("/exit", "/quit"):
                    return
                self._command(name, "".join(rest))
            elif text:
                self._answer(text if self._chatting else message)

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
            self._note(
                f"{name} is no command; /help lists them, a space before it makes it a message"
            )

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
