"""A lock file that lets one process at a time write a folder, on any file system and after any crash.

The file names its owner: verb, host, process id, start of the process, time. It is made with O_EXCL, which
every file system has. Where there is flock as well, the owner holds it for as long as the process lives: the
kernel then knows of a living owner in another container too, and two processes cannot take over the same
stale lock. Neither symbolic nor hard links are needed.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console

from mengya.errors import UserError

_NAME_TIMEOUT = 2.0  # seconds from making a lock to writing its owner into it, at most
_SETTLE = 0.2  # seconds between two processes that take over the same lock, at most
_ATTEMPTS = 1000  # to make a file in a folder that others remove; /proc never lets one be made


@dataclass(frozen=True)
class Owner:
    """Who holds a lock; `started` tells a process from a later one of the same id."""

    verb: str
    host: str
    pid: int
    started: str
    time: str

    def __str__(self) -> str:
        return f"`mengya {self.verb}`, process {self.pid} on {self.host} since {self.time}"


@contextmanager
def hold_lock(lock: Path, folder: Path, verb: str, key: str) -> Iterator[None]:
    """Hold `lock` inside the block; it is released on every way out, SIGTERM and Ctrl-C included.

    A lock of a process of this host that is gone is taken over, with a line on stderr.

    Args:
        folder: what is locked, and `key`: the setting that named it, for messages.

    Raises:
        UserError: another process holds it, or one of another host did; or it cannot be written.
    """
    descriptor = _take(lock, folder, verb, key)
    owner_pid = os.getpid()
    try:
        with _exit_on_sigterm():
            yield
    finally:
        if os.getpid() == owner_pid:  # a forked child leaves it to its parent
            with suppress(OSError):
                if _is_at(descriptor, lock):
                    lock.unlink()
        os.close(descriptor)


def say(text: str) -> None:
    """A line on stderr."""
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def read_owner(lock: Path) -> Owner | None:
    """The owner that a lock file names; None without a file that names one."""
    try:
        return Owner(**json.loads(lock.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def process_start(pid: int) -> str | None:
    """When a process of this host began, in some fixed form; None when there is no such process.

    Linux: the boot of the machine and the clock ticks since (proc_pid_stat(5), field 22); elsewhere what
    `ps` says. A zombie has ended.
    """
    if Path("/proc/self/stat").is_file():
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        state, *fields = text.rpartition(")")[2].split()  # the name before may hold anything
        boot = ""
        with suppress(OSError):  # not in every sandbox
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return None if state in "ZXx" else f"{boot}/{fields[18]}"
    shown = subprocess.run(
        ["ps", "-o", "state=,lstart=", "-p", str(pid)],
        capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    state, _, started = shown.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def _take(lock: Path, folder: Path, verb: str, key: str) -> int:
    """Make the lock ours; its file descriptor, open."""
    deadline = time.monotonic() + _NAME_TIMEOUT
    while True:
        descriptor, is_new = _open(lock, key)
        done = False
        try:
            is_free = _try_flock(descriptor)
            if not _is_at(descriptor, lock):
                continue  # released, or taken over, while we looked
            owner = None if is_new and is_free else read_owner(lock)
            if not is_new or not is_free:
                if owner is None and time.monotonic() < deadline:
                    time.sleep(0.02)  # its owner is about to write its name
                    continue
                _refuse_unless_stale(lock, folder, key, owner, is_free)
                say(f"{lock} was left by {owner}, which has ended: taken over")
            try:
                owner_now = _write(descriptor, verb)
            except OSError as error:  # a full disk
                lock.unlink(missing_ok=True)
                raise UserError(
                    f"{lock}, which keeps other runs out, cannot be written: {error}"
                ) from error
            if not is_new:
                time.sleep(_SETTLE)
                if read_owner(lock) != owner_now:
                    continue  # without flock two may take over at once: the last one to write has it
            done = True
            return descriptor
        finally:
            if not done:
                os.close(descriptor)


def _open(lock: Path, key: str) -> tuple[int, bool]:
    """The lock file, and whether it was made just now."""
    error: OSError | None = None
    for _ in range(_ATTEMPTS):
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), True
        except FileExistsError:
            if not lock.parent.is_dir():
                raise UserError(f"{key}: {lock.parent} is not a folder") from None
        except FileNotFoundError as missing:
            error = missing  # the folder was removed by the process that had made it
            continue
        except OSError as refused:
            error = refused
            break
        try:
            return os.open(lock, os.O_RDWR), False
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(
                f"{lock} cannot be opened: {error}; another user's run made it"
            ) from error
    raise UserError(
        f"{lock}, which keeps other runs out, cannot be written: {error}; choose another {key}= where you "
        "may write"
    ) from error


def _try_flock(descriptor: int) -> bool:
    """Whether nobody else holds the lock, as far as this file system can tell."""
    try:
        import fcntl
    except ImportError:  # no POSIX system
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # not on this file system: O_EXCL and the owner's name must do
        return True
    return True


def _is_at(descriptor: int, lock: Path) -> bool:
    """Whether the open file is still the one at this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), lock.stat())
    except FileNotFoundError:
        return False


def _refuse_unless_stale(
    lock: Path, folder: Path, key: str, owner: Owner | None, is_free: bool
) -> None:
    if owner is None:
        raise UserError(
            f"{folder} is locked by {lock}, which does not say by whom; if no other run writes "
            f"{folder}, type: rm {shlex.quote(str(lock))}"
        )
    if is_free and owner.host == socket.gethostname():
        if process_start(owner.pid) != owner.started:
            return
    elif is_free:
        raise UserError(
            f"{folder} is locked by {owner}. Whether it still runs cannot be seen from "
            f"{socket.gethostname()}; if it does not, type: "
            f"rm {shlex.quote(str(lock))}"
        )
    raise UserError(
        f"{folder} is being written by {owner}; wait until it ends, or choose another {key}"
    )


def _write(descriptor: int, verb: str) -> Owner:
    pid = os.getpid()
    owner = Owner(
        verb=verb,
        host=socket.gethostname(),
        pid=pid,
        started=process_start(pid) or "",
        time=time.strftime("%Y-%m-%d %H:%M:%S"),
    )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, (json.dumps(asdict(owner)) + "\n").encode(), 0)
    os.fsync(descriptor)
    return owner


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the stack, where it would end the process at once.

    Handlers can be set in the main thread only, and one that somebody else has set stays.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, _raise_exit)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _raise_exit:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise_exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # what a shell reports of a process that the signal ended
