"""The process that tries JSON schemas out: `python -m mengya.serving.runtime.schema_process`.

Lines of JSON in and out. The first: the vocabulary and the limits. Then a schema a line; the answer
is {"problem": why it is refused, or null}. A schema beyond the limits ends the process: by SIGPROF
when it takes too much time, by a failed allocation when it takes too much memory.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import llguidance

from mengya.serving.runtime.json_schema import compile_schema


def main() -> None:
    """Answer until the input ends."""
    setup = json.loads(sys.stdin.buffer.readline())
    vocabulary = llguidance.LLTokenizer(
        setup["tokenizer"], n_vocab=setup["vocab_size"], eos_token=setup["stop_token_ids"]
    )
    _limit_memory(setup["memory_mb"])
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        _limit_time(setup["seconds"])
        problem = _problem(vocabulary, asked["schema"], asked["strict"])
        _limit_time(0)
        sys.stdout.write(json.dumps({"problem": problem}) + "\n")
        sys.stdout.flush()


def _problem(
    vocabulary: llguidance.LLTokenizer, schema: dict[str, Any], strict: bool
) -> str | None:
    try:
        compile_schema(vocabulary, schema, strict)
    except ValueError as error:
        return str(error)
    return None


def _limit_time(seconds: float) -> None:
    """End this process when it has computed for `seconds` more; 0: no limit."""
    if hasattr(signal, "setitimer"):  # not on Windows: the caller's own limit remains
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory(megabytes: int) -> None:
    """Let allocations fail beyond `megabytes` more than now; on Linux only."""
    pages = Path("/proc/self/statm")
    if not pages.is_file():
        return
    import resource

    size = int(pages.read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + megabytes * 2**20, most))


if __name__ == "__main__":
    main()
