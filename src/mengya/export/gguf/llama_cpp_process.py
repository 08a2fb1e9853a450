"""llama.cpp, asked in another process: where it is found, and the pipe to it.

Knows no model of ours. It is looked for in this Python (extra llamacpp), or in the Python that the
environment variable MENGYA_LLAMA_PYTHON names.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mengya.errors import UserError
from mengya.runtime.optional import install_command

VARIABLE = "MENGYA_LLAMA_PYTHON"
_WORKER = Path(__file__).with_name("llama_cpp_worker.py")
_LISTS = ("llama_model_loader: - ", "print_info:")  # of everything in a file
_SHOWN_LINES = 12  # of llama.cpp's messages, in an error


def llama_python() -> str | None:
    """A Python with llama-cpp-python; None without one."""
    if named := os.environ.get(VARIABLE):
        return named
    return sys.executable if importlib.util.find_spec("llama_cpp") else None


def require_llama_cpp(what: str) -> str:
    """The same. Raises UserError, which says that `what` needs it and how to install it."""
    found = llama_python()
    if found is None:
        raise UserError(
            f"{what} needs llama.cpp, which llama-cpp-python brings; {install_command('llamacpp')} (it "
            f"compiles for some minutes), or name a Python that has it in {VARIABLE}"
        )
    return found


class LlamaCppProcess:
    """A running worker; a context manager."""

    def __init__(self, python: str) -> None:
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        try:
            self._process = subprocess.Popen(
                [python, "-I", str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._messages,
            )
        except OSError as error:
            raise UserError(
                f"{VARIABLE}={python} does not start: {error.strerror}; name a Python program"
            ) from error

    def __enter__(self) -> LlamaCppProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._messages.close()

    def ask(self, do: str, **values: Any) -> Any:
        """The answer to one question, an array for logits.

        Raises:
            UserError: llama.cpp refused, or its process died; with the last of its messages.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps({"do": do, **values}).encode() + b"\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            code = self._process.wait()
            raise UserError(f"llama.cpp ended (code {code}) when asked to {do}:\n{self._last()}")
        result = json.loads(line)
        if "error" in result:
            raise UserError(f"llama.cpp, asked to {do}: {result['error']}\n{self._last()}")
        if "shape" in result:
            raw = stdout.read(result["bytes"])
            return np.frombuffer(raw, np.float32).reshape(result["shape"])
        return result

    def _last(self) -> str:
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").splitlines()
        said = [line for line in lines if not line.startswith(_LISTS)]
        return "\n".join(said[-_SHOWN_LINES:])
