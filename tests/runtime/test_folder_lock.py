"""One process at a time: real processes that hold, die, are stopped, and meet."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mengya.errors import UserError
from mengya.runtime.folder_lock import hold_lock, process_start, read_owner

HOLD = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests started in the background ignore it
from mengya.runtime.folder_lock import hold_lock
lock = Path(sys.argv[1])
with hold_lock(lock, lock.parent / "out", "prepare", "out"):
    print("held", flush=True)
    if len(sys.argv) > 2:
        raise ValueError(sys.argv[2])
    time.sleep(60)
"""


def start(lock: Path, *more: str) -> subprocess.Popen[str]:
    """A process that holds the lock, or failed to."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock), *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n", process.communicate()[1]
    return process


def take(lock: Path) -> None:
    with hold_lock(lock, lock.parent / "out", "tokenizer", "out"):
        owner = read_owner(lock)
        assert owner is not None and owner.pid == os.getpid()
        assert owner.started == process_start(os.getpid())
    assert not lock.exists()


def plant(lock: Path, **changed: object) -> None:
    owner = {
        "verb": "prepare", "host": socket.gethostname(), "pid": os.getpid(),
        "started": process_start(os.getpid()), "time": "2026-11-30 12:00:00",
    }  # fmt: skip
    lock.write_text(json.dumps({**owner, **changed}))


def test_a_second_process_is_refused_with_the_owner_and_no_longer_when_it_has_ended(
    tmp_path: Path,
) -> None:
    lock = tmp_path / ".out.mengya-lock"
    process = start(lock)
    with pytest.raises(UserError) as refused:
        take(lock)
    for word in ("`mengya prepare`", f"process {process.pid} on {socket.gethostname()}"):
        assert word in str(refused.value)
    process.kill()
    process.wait()
    take(lock)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)]
)
def test_a_stopped_process_releases_its_lock(tmp_path: Path, number: int, code: int) -> None:
    lock = tmp_path / "lock"
    process = start(lock)
    process.send_signal(number)
    assert process.wait(timeout=20) == code
    assert not lock.exists()


def test_an_error_releases_the_lock(tmp_path: Path) -> None:
    process = start(tmp_path / "lock", "broken")
    assert "ValueError: broken" in process.communicate(timeout=20)[1]
    assert not (tmp_path / "lock").exists()


def test_a_killed_process_leaves_a_lock_that_is_taken_over_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "lock"
    process = start(lock)
    process.kill()
    time.sleep(0.2)  # a zombie now: nobody has waited for it
    assert lock.exists()
    take(lock)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"process {process.pid}" in said and "taken over" in said
    process.wait()


def test_a_later_process_of_the_same_id_is_not_taken_for_the_owner(tmp_path: Path) -> None:
    plant(tmp_path / "lock", started="an earlier start")
    take(tmp_path / "lock")
    plant(tmp_path / "lock")
    with pytest.raises(UserError, match="is being written"):
        take(tmp_path / "lock")


@pytest.mark.parametrize("text", [None, "", "[]", "half"])
def test_a_lock_of_another_host_or_of_nobody_is_refused_and_the_remedy_helps(
    tmp_path: Path, text: str | None
) -> None:
    lock = tmp_path / "the lock"
    if text is None:
        plant(lock, host="another-host", pid=1)
    else:
        lock.write_text(text)
    with pytest.raises(UserError) as refused:
        take(lock)
    assert ("another-host" in str(refused.value)) == (text is None)
    remedy = str(refused.value).partition("type: ")[2]
    subprocess.run(shlex.split(remedy), check=True)
    take(lock)


def test_a_process_does_not_hold_a_lock_twice(tmp_path: Path) -> None:
    with (
        hold_lock(tmp_path / "lock", tmp_path, "prepare", "out"),
        pytest.raises(UserError, match=f"process {os.getpid()} "),
    ):
        take(tmp_path / "lock")
    take(tmp_path / "lock")


RACE = """
import sys, time
from pathlib import Path
from mengya.errors import UserError
from mengya.runtime.folder_lock import hold_lock
lock = Path(sys.argv[1])
while time.time() < float(sys.argv[2]):
    pass
try:
    with hold_lock(lock, lock, "prepare", "out"):
        (lock.parent / "winners").open("a").write("x")
        time.sleep(1.5)
except UserError:
    pass
"""


# A file system without flock: O_EXCL and the owner's name decide.
NO_FLOCK = """
import fcntl
def flock(*of):
    raise OSError(38, "Function not implemented")
fcntl.flock = flock
"""


@pytest.mark.parametrize("flock", [True, False])
@pytest.mark.parametrize("stale", [True, False])
def test_of_many_that_come_at_once_one_gets_the_lock(
    tmp_path: Path, flock: bool, stale: bool
) -> None:
    lock = tmp_path / "lock"
    if stale:
        plant(lock, started="an earlier start")
    script = RACE if flock else NO_FLOCK + RACE
    moment = str(time.time() + 6)
    command = [sys.executable, "-c", script, str(lock), moment]
    for process in [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(4)]:
        assert process.wait(timeout=60) == 0
    assert (tmp_path / "winners").read_text() == "x"


def test_a_folder_that_takes_no_files_is_refused() -> None:
    """/proc says that the file is missing, however often it is made."""
    if not Path("/proc/self").is_dir():
        pytest.skip("no /proc")
    with (
        pytest.raises(UserError, match="choose another out="),
        hold_lock(Path("/proc/.x.mengya-lock"), Path("/proc/x"), "prepare", "out"),
    ):
        pass
