"""What was typed at the prompt of `mengya chat`, kept between sessions in a file of its user.

JSON lines of {"text": ...}, the newest last; readable by the user alone, bounded in number and length.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from prompt_toolkit.history import History, InMemoryHistory

from mengya.errors import UserError, user_message
from mengya.runtime.files import write_text
from mengya.runtime.jsonl import json_line, read_json_lines, remove_cut_line
from mengya.runtime.unicode import is_unicode

KEPT = 1000  # messages
LONGEST = 20_000  # characters of a message; longer ones are recalled in their own session only
_MODE = 0o600


def history_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the history is, by the XDG base directory specification; LOCALAPPDATA on Windows.

    Raises:
        RuntimeError: the user has no home folder.
    """
    state = Path(environment.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # which the specification says to ignore
        local = environment.get("LOCALAPPDATA", "") if sys.platform == "win32" else ""
        state = Path(local) if local else Path.home() / ".local/state"
    return state / "mengya/chat_history.jsonl"


def open_history(say: Callable[[str], None]) -> History:
    """The user's history, or one of this session alone where it cannot be kept; says which."""
    try:
        path = history_file()
        history = InputHistory(path)
    except (OSError, RuntimeError, UserError) as error:
        say(f"what you type is not kept: {user_message(error) or error}")
        return InMemoryHistory()
    say(f"what you type is kept in {path}\n(history=false keeps nothing)")
    return history


class InputHistory(History):
    """A history of prompt_toolkit over the file.

    Raises:
        OSError, UserError: the file cannot be read and written, or is not a history.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no ordinary file")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_cut_line(path)
        lines = [line for _, line in read_json_lines(path)]
        texts = [line.get("text") if isinstance(line, dict) else None for line in lines]
        self._earlier = [text for text in texts if isinstance(text, str)][-KEPT:]
        if len(self._earlier) < len(texts):
            write_text(path, "".join(map(_line, self._earlier)), _MODE)
        self._append("")  # proves that it can be written, and creates it
        path.chmod(_MODE)

    def load_history_strings(self) -> Iterable[str]:
        """The newest first."""
        return reversed(self._earlier)

    def store_string(self, string: str) -> None:
        if len(string) <= LONGEST and is_unicode(string):
            with suppress(OSError):  # a full disk must not end the conversation
                self._append(_line(string))

    def _append(self, line: str) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with os.fdopen(os.open(self._path, flags, _MODE), "w", encoding="utf-8") as file:
            file.write(line)


def _line(text: str) -> str:
    return json_line({"text": text})
