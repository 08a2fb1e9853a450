"""Programs that a model wrote, run in a process of their own with limits; never in ours.

Only after the user has switched it on (run_exam_code=true). The limits are launcher.py's; on top of them come
an empty folder, an empty environment and a wall-clock limit.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from mengya.errors import UserError

SECONDS = 6  # of computing
_WAITING = (
    5  # times as many on the clock: a right program must not fail because the machine is busy
)

_LAUNCHER = Path(__file__).with_name("launcher.py")


@dataclass(frozen=True)
class Outcome:
    """How a program ended, and what it printed (at most 1 MiB).

    timeout: it computed, or waited, for too long.
    """

    status: Literal["ended", "failed", "timeout"]
    output: str


def require_sandbox() -> None:
    """
    Raises:
        UserError: this system has no limits for processes.
    """
    if os.name != "posix":
        raise UserError(
            "programs of a model run on Linux and macOS only, which can limit a process; leave this exam "
            "out, or run it there"
        )


def run_program(source: str, stdin: str = "", seconds: int = SECONDS) -> Outcome:
    """Run Python source under limits."""
    with TemporaryDirectory(prefix="mengya-code-", ignore_cleanup_errors=True) as folder:
        program, output = Path(folder, "program.py"), Path(folder, "output")
        program.write_text(source, "utf-8", errors="surrogatepass")
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-I", str(_LAUNCHER), str(program), str(seconds)],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={"LANG": "C.UTF-8"},
                start_new_session=True,
            )
            try:
                process.communicate(stdin.encode(), timeout=_WAITING * seconds)
                status = "ended" if process.returncode == 0 else "failed"
                if process.returncode == -signal.SIGXCPU:
                    status = "timeout"
            except subprocess.TimeoutExpired:
                status = "timeout"
            finally:
                _end(process)
        return Outcome(status, output.read_bytes().decode("utf-8", "replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """The program and whatever it started."""
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
