"""Programs of a model: only where the user says so, and under limits."""

from __future__ import annotations

import base64
import json
import pickle
import socket
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mengya.errors import UserError
from mengya.evaluation.exams.code.sandbox import run_program
from mengya.evaluation.exams.code.scoring import humaneval_score, livecodebench_score
from mengya.evaluation.exams.exam import ask_exam
from mengya.evaluation.subject import Subject
from tests.evaluation.exams import exam_files

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes have no limits there")

ONE = {
    "prompt": "def one():\n",
    "test": "def check(f):\n    assert f() == 1\n",
    "entry_point": "one",
}


def test_no_program_runs_unless_the_user_says_so(subject: Subject, tmp_path: Path) -> None:
    path = exam_files.humaneval(tmp_path / "x.jsonl")
    with pytest.raises(UserError, match="write run_exam_code=true"):
        ask_exam(subject, str(path))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("    return 1\n", 1.0),
        ("    return 2\n", 0.0),
        ("    return (\n", 0.0),
        ("    return 1\nimport os\nos._exit(0)\n", 0.0),  # ends before the test
        ("    return 1\nraise SystemExit(0)\n", 0.0),
        ("    while True: pass\n", 0.0),
    ],
)
def test_humaneval_passes_what_its_asserts_pass(answer: str, right: float) -> None:
    assert humaneval_score(ONE, [answer]) == {"pass@1": right}


def test_a_program_has_no_more_than_its_limits(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("1")
    assert run_program("while True: pass", seconds=1).status == "timeout"
    assert run_program("import time; time.sleep(60)", seconds=1).status == "timeout"
    deaf = "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    assert run_program(deaf, seconds=1).status == "failed"  # killed a second later
    assert run_program("x = bytearray(3 << 30)").status == "failed"
    assert len(run_program("while True: print('a' * 1000)").output) <= 1 << 20
    assert run_program("import os; print(len(os.environ))").output in (
        "1\n",
        "2\n",
    )  # LANG, LC_CTYPE
    assert run_program("import torch").status == "failed"  # nothing of ours is importable
    assert run_program("print(input())", "小猫").output == "小猫\n"


def test_a_busy_machine_changes_no_verdict() -> None:
    programs = ["while True: pass"] * 4 + ["print(sum(range(10**6)))"] * 4
    with ThreadPoolExecutor(len(programs)) as pool:
        found = [outcome.status for outcome in pool.map(lambda p: run_program(p, "", 2), programs)]
    assert found == ["timeout"] * 4 + ["ended"] * 4


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has networks of a process")
def test_a_program_has_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2); print('in')"
        assert run_program(program).output == ""


def livecodebench(private: str, starter: str = "", **case: Any) -> dict[str, Any]:
    public = {"input": "2\n", "output": "4\n", "testtype": "stdin"} | case
    return {
        "question_content": "double",
        "starter_code": starter,
        "public_test_cases": json.dumps([public]),
        "private_test_cases": private,
    }


PRIVATE = json.dumps([{"input": "5", "output": "10", "testtype": "stdin"}])
PACKED = base64.b64encode(zlib.compress(pickle.dumps(PRIVATE))).decode()


@pytest.mark.parametrize("private", ["", PRIVATE, PACKED])
def test_livecodebench_wants_every_test(private: str) -> None:
    row = livecodebench(private)
    assert livecodebench_score(row, ["print(int(input()) * 2)"]) == {"pass@1": 1.0}
    only_public = "print(4 if (n := int(input())) == 2 else 0)"
    assert livecodebench_score(row, [only_public]) == {"pass@1": float(not private)}


def test_livecodebench_calls_the_starter_code() -> None:
    starter = "class Solution:\n    def twice(self, xs: List[int]) -> List[int]:\n"
    row = livecodebench("", starter, input="[1, 2]", output="[2,4]", testtype="functional")
    answer = (
        "class Solution:\n    def twice(self, xs: List[int]):\n        return [x * 2 for x in xs]\n"
    )
    assert livecodebench_score(row, [answer]) == {"pass@1": 1.0}
    assert livecodebench_score(row, [answer.replace("* 2", "* 3")]) == {"pass@1": 0.0}


class _Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({_Harm.file!r}, 'w')",)

    file = ""


def test_a_pickle_is_read_and_never_run(tmp_path: Path) -> None:
    _Harm.file = str(tmp_path / "harm")
    packed = base64.b64encode(zlib.compress(pickle.dumps(_Harm()))).decode()
    with pytest.raises(UserError, match="neither JSON nor packed"):
        livecodebench_score(livecodebench(packed), ["print(4)"])
    assert not (tmp_path / "harm").exists()
    with pytest.raises(UserError, match="neither JSON nor packed"):
        livecodebench_score(livecodebench("no base64!"), ["print(4)"])
