"""Run a program under limits: python -I launcher.py PROGRAM SECONDS. Standard library only.

sandbox.py starts it. The limits hold for what it becomes, too: it replaces itself by the program. They keep
a faulty program from harm (endless loops, memory, files, the network); they are no wall against an attacker.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

_MEMORY = 1 << 30
_FILE = 1 << 20  # of what it writes, its output included
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # CLONE_NEWUSER, CLONE_NEWNET of linux/sched.h


def main(program: str, seconds: int) -> None:
    if sys.platform == "linux":
        # A network of its own, without any interface. Where the kernel forbids it, the rest still holds.
        ctypes.CDLL(None).unshare(_NEW_USER | _NEW_NETWORK)
    for limit, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_FSIZE, _FILE),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 0),  # no further processes; root is exempt
    ):
        # Where both limits of the time are equal, Linux may send SIGKILL, which does not say why.
        _lower(limit, value, value + (limit == resource.RLIMIT_CPU))
    os.execv(sys.executable, [sys.executable, "-I", "-S", program])


def _lower(limit: int, soft: int, hard: int) -> None:
    try:
        _, most = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(limit, (soft, hard))
    except (OSError, ValueError) as error:  # macOS knows no limit of the address space
        sys.stderr.write(f"limit {limit}: {error}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
