"""Schemas are tried out in a process of their own before the server compiles them.

Compiling a schema can take any time and any memory, and cannot be interrupted: so a process does it
first that may be killed, by its limits or because the client left.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import OrderedDict

from mengya.serving.runtime.grammar import Grammars
from mengya.serving.runtime.json_schema import ReplySchema

_REMEMBERED = 1024
# The limit is on computing; on a busy machine it lasts longer by the clock, but not for ever.
_TIMEOUT = 10


class SchemaCheck:
    """One process, started with the first schema and again after each that ended it.

    Args:
        seconds: of computing that a schema may take.
        memory_mb: MiB that a schema may take.
    """

    def __init__(self, seconds: float, memory_mb: int) -> None:
        self._seconds, self._memory_mb = seconds, memory_mb
        self._process: Process | None = None
        self._one_at_a_time = asyncio.Lock()
        self._verdicts: OrderedDict[bytes, str | None] = OrderedDict()

    async def problem(self, grammars: Grammars, schema: ReplySchema) -> str | None:
        """Why the schema is refused; None: it compiles within the limits.

        Cancelling kills the process when it is at this schema.
        """
        asked = json.dumps({"schema": schema.value, "strict": schema.strict}).encode()
        key = hashlib.sha256(asked).digest()
        if key not in self._verdicts:
            async with self._one_at_a_time:
                verdict = await self._ask(grammars, asked)
            self._verdicts[key] = verdict
            if len(self._verdicts) > _REMEMBERED:
                self._verdicts.popitem(last=False)
        return self._verdicts[key]

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        await process.wait()

    async def _ask(self, grammars: Grammars, asked: bytes) -> str | None:
        answer = b""
        try:
            process = self._process or await self._start(grammars)
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(asked + b"\n")
            # The first answer also waits for Python and the vocabulary.
            seconds = _TIMEOUT * self._seconds + 60
            answer = await asyncio.wait_for(process.stdout.readline(), seconds)
            if answer:
                return json.loads(answer)["problem"]
            ended = await process.wait()
        except TimeoutError:
            ended = -signal.SIGPROF
        finally:
            if not answer:
                await self.close()
        if ended == -signal.SIGPROF:
            return f"it takes more than {self._seconds:g} seconds to compile; make it smaller"
        return f"it takes more than {self._memory_mb} MiB to compile; make it smaller"

    async def _start(self, grammars: Grammars) -> Process:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mengya.serving.runtime.schema_process",
            stdin=PIPE, stdout=PIPE, stderr=DEVNULL,
            start_new_session=True,  # Ctrl-C is the server's
        )  # fmt: skip
        limits = {"seconds": self._seconds, "memory_mb": self._memory_mb}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**grammars.vocabulary_json(), **limits}).encode())
        self._process.stdin.write(b"\n")
        return self._process
