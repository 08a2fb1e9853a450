"""A page of the docs as the tests read it, and a reader who types its commands.

Takes a page by its path below the clone; gives its blocks, and what a command printed. Does not know
what any page says.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from contextlib import chdir, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from mengya.cli import main

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[str]:
    """The fenced blocks of a page in these languages (none named: in all), in order."""
    found = _FENCED.findall(read(page))
    return [text for language, text in found if language in languages or not languages]


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)


def joined(block: str) -> str:
    """A block with each command on one line."""
    return re.sub(r"\\\n\s*", "", block)


def inline_code(page: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def environment(**more: str) -> dict[str, str]:
    """A reader's shell after `source .venv/bin/activate`; one thread, as other tests run as well."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **more}


def type_in(block: str, folder: Path) -> str:
    """Run the lines of a block as a reader would, in `folder`; gives what went to stdout."""
    done = _shell(block, folder, environment(), subprocess.PIPE)
    assert done.returncode == 0, f"{block}\n{done.stdout.decode()}\n{done.stderr.decode()}"
    return done.stdout.decode()


def _shell(
    block: str, folder: Path, variables: dict[str, str], stderr: int
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        timeout=500,
    )


@dataclass(frozen=True)
class Exchange:
    """What a page says to type, and the output that it shows for it."""

    command: str
    shown: str
    """"" where the page shows nothing."""
    span: tuple[int, int] | None
    """Where in the page the shown output stands."""
    exit_code: int


def exchanges(page: str) -> list[Exchange]:
    """The commands of a page in order: `sh` blocks with the `text` block right below, if any, and
    `console` blocks, which show an error."""
    text, found = read(page), []
    fenced = list(_FENCED.finditer(text))
    for number, block in enumerate(fenced):
        if block[1] == "sh":
            below = fenced[number + 1] if number + 1 < len(fenced) else None
            near = below and below[1] == "text" and not text[block.end() : below.start()].strip()
            shown, span = (below[2], below.span(2)) if below and near else ("", None)
            found.append(Exchange(block[2], shown, span, 0))
        elif block[1] == "console":
            typed = re.match(r"\$ (?:.*\\\n)*.*\n", block[2])
            assert typed, f"{page}: a console block begins with $: {block[2]}"
            span = (block.start(2) + typed.end(), block.end(2))
            found.append(Exchange(typed[0][2:], block[2][typed.end() :], span, 2))
    return found


def screen_after(exchange: Exchange, folder: Path) -> str:
    """Everything that a reader sees after typing the command: stdout and stderr in the order in which
    they came, without the spaces at the ends of lines and the empty lines around it."""
    if exchange.exit_code:
        return _error_after(shlex.split(joined(exchange.command)), folder)
    variables = environment(COLUMNS="100", PYTHONUNBUFFERED="1")
    done = _shell(exchange.command, folder, variables, subprocess.STDOUT)
    printed = done.stdout.decode()
    assert done.returncode == 0, f"{exchange.command}\n{printed}"
    # A bar that goes back to the beginning of its line leaves its last state.
    lines = [line.rpartition("\r")[2].rstrip() for line in printed.split("\n")]
    return "\n".join(lines).strip("\n") + "\n" if any(lines) else ""


def _error_after(words: list[str], folder: Path) -> str:
    """What `mengya ...` prints before it ends with code 2. In this process: it spares an import of torch."""
    arguments, sys.argv = sys.argv, words
    try:
        with (
            chdir(folder),
            redirect_stderr(StringIO()) as printed,
            pytest.raises(SystemExit) as end,
        ):
            main()
    finally:
        sys.argv = arguments
    assert words[0] == "mengya" and end.value.code == 2, printed.getvalue()
    return printed.getvalue()


def write_shown(page: str, screens: list[str]) -> None:
    """Put what came into a page, in place of what it shows."""
    text = read(page)
    for exchange, screen in reversed(list(zip(exchanges(page), screens, strict=True))):
        assert exchange.span or not screen, f"{page}: no text block below {exchange.command}"
        if exchange.span:
            text = text[: exchange.span[0]] + screen + text[exchange.span[1] :]
    (ROOT / page).write_text(text, encoding="utf-8")
