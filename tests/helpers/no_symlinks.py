"""A process in which the kernel refuses symbolic links, as exFAT does: a seccomp filter, for good."""

from __future__ import annotations

import ctypes
import platform
import struct

_CALLS = {"x86_64": (88, 266), "aarch64": (36,)}  # symlink, symlinkat
SUPPORTED = platform.system() == "Linux" and platform.machine() in _CALLS
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06  # of classic BPF: load a word, jump if equal, return
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001


def forbid_symlinks() -> None:
    calls = _CALLS[platform.machine()]
    program = [(_LOAD, 0, 0, 0)]
    program += [(_EQUALS, len(calls) - i, 0, number) for i, number in enumerate(calls)]
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _EPERM)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((38, 1, 0, 0, 0), (22, 2, ctypes.create_string_buffer(header), 0, 0)):
        if libc.prctl(*arguments):  # PR_SET_NO_NEW_PRIVS, then PR_SET_SECCOMP
            raise OSError(ctypes.get_errno(), "prctl")
