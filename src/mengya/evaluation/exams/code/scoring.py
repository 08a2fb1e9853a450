"""Whether a program that a model wrote passes the tests of its row. Runs it: see sandbox.py.

In the harness's form of process_results: (row, [text]) -> metric -> value.
"""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import re
import secrets
import zlib
from typing import Any

from mengya.errors import UserError
from mengya.evaluation.exams.code.sandbox import run_program


def humaneval_score(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """pass@1 of one completion (Chen et al. 2021, arXiv:2107.03374): all asserts of the test hold."""
    passed = secrets.token_hex(8)  # a program that ends early has not printed it
    program = f"{doc['prompt']}{results[0]}\n{doc['test']}\ncheck({doc['entry_point']})\nprint('{passed}')\n"
    outcome = run_program(program)
    right = outcome.status == "ended" and outcome.output.rstrip().endswith(passed)
    return {"pass@1": float(right)}


def livecodebench_score(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """pass@1 of one program (Jain et al. 2024, arXiv:2403.07974): every public and private test passes."""
    cases = json.loads(doc["public_test_cases"]) + _private_cases(doc["private_test_cases"])
    if not cases:
        raise UserError(
            f"{doc['question_content'][:60]!r} has no test case; take it out of the file"
        )
    return {"pass@1": float(all(_passes(results[0], doc["starter_code"], case) for case in cases))}


def _passes(answer: str, starter: str, case: dict[str, str]) -> bool:
    if case.get("testtype") == "functional":
        names = re.findall(r"def\s+(\w+)\s*\(\s*self", starter)
        answer += (
            "\n\nimport json, sys\n"
            "given = [json.loads(line) for line in sys.stdin.read().splitlines() if line.strip()]\n"
            f"print(json.dumps(Solution().{names[-1] if names else 'solve'}(*given)))\n"
        )
        program = f"from typing import *\n{answer}"
    else:
        program = answer
    outcome = run_program(program, case["input"])
    return outcome.status == "ended" and _lines(outcome.output) == _lines(case["output"])


def _lines(text: str) -> list[list[str]]:
    """Words by line; spaces between them do not count, of JSON neither."""
    try:
        return [[json.dumps(json.loads(text))]]
    except ValueError:
        return [line.split() for line in text.strip().splitlines()]


def _private_cases(packed: str) -> list[dict[str, str]]:
    """JSON, or as the data set has it: base64 of zlib of a pickle of a string of JSON.

    The pickle is read for its one string and never unpickled, which would run whatever it says.
    """
    if packed.lstrip().startswith("["):
        return json.loads(packed)
    if not packed.strip():
        return []
    try:
        pickled = zlib.decompress(base64.b64decode(packed, validate=True))
        strings = [
            str(a) for op, a, _ in pickletools.genops(pickled) if op.name.endswith("UNICODE")
        ]
        return json.loads(strings[0])
    except (binascii.Error, zlib.error, ValueError, IndexError) as error:
        raise UserError(
            f"private_test_cases are neither JSON nor packed as LiveCodeBench's are: {error}"
        ) from error
