"""What a user caused and can fix ends in one message; everything else is a bug and keeps its traceback."""

from __future__ import annotations

import errno
import os
import re

_MAX_SHOWN = 80  # characters of a value that a message quotes


class UserError(Exception):
    """Something the user can fix. The command line prints it without a traceback and exits with 2."""


def shown(value: object) -> str:
    """`value` as a message quotes it: its repr, of more than 80 characters the beginning and the end.

    Paths of one folder differ at their ends.
    """
    text = repr(value)
    if len(text) <= _MAX_SHOWN:
        return text
    return f"{text[: _MAX_SHOWN // 2 - 3]}...{text[-_MAX_SHOWN // 2 :]}"


_REMEDIES = {
    errno.ENOSPC: "free some space, then type the same again",
    errno.EDQUOT: "your quota is used up: free some space, then type the same again",
    errno.EFBIG: "the file system or ulimit -f allows no larger file: choose another path",
    errno.EROFS: "the file system is read-only: choose another path",
    errno.EACCES: "you are not permitted: choose another path, or ask its owner",
    errno.EPERM: "you are not permitted: choose another path, or ask its owner",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file: check the path",
    errno.EISDIR: "a file is needed there, not a folder: check the path",
    errno.EEXIST: "something else is there: move it, or choose another path",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "its links are circular: check the path",
    errno.EMFILE: "too many files are open: raise the limit with ulimit -n",
    errno.EIO: "the disk or network share failed: check it, then type the same again",
}
# Of a write, which does not know the file's name.
_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def user_message(error: BaseException) -> str | None:
    """What to print of an error that a user caused, the operating system's included; None for a bug.

    An `OSError` that names a file is about the user's paths, disks and rights, whichever line of ours
    met it. Memory that does not suffice is about the size that was asked for.
    """
    if isinstance(error, UserError):
        return str(error)
    error = _of_writing(error)
    if isinstance(error, OSError) and error.errno is not None:
        remedy = _REMEDIES.get(error.errno)
        if error.filename is None and error.errno not in _WRITING:
            return None
        name = "a file being written" if error.filename is None else _name(error.filename)
        return f"{name}: {error.strerror}" + (f"; {remedy}" if remedy else "")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        first = (str(error).splitlines() or [""])[0] or "out of memory"
        return (
            f"{first}\nIt does not fit into the memory: in training write a smaller micro_batch_size or "
            "gradient_checkpointing=true (`mengya plan` says what fits), elsewhere a smaller batch"
        )
    return None


def _of_writing(error: BaseException) -> BaseException:
    """What safetensors and numpy say of a disk that takes no more, as the error that Python has for it."""
    text = str(error)
    if type(error).__name__ == "SafetensorError" and (code := re.search(r"os error (\d+)\)", text)):
        return OSError(int(code[1]), os.strerror(int(code[1])))
    if type(error) is OSError and re.fullmatch(r"\d+ requested and \d+ written", text):
        return OSError(errno.ENOSPC, f"{text}, the disk is full or allows no larger file")
    return error


def _name(filename: object) -> str:
    return filename.decode(errors="replace") if isinstance(filename, bytes) else str(filename)
