"""Types that only llama.cpp makes: K-quants, which mix widths by the place of a tensor.

A full file is written first, and llama.cpp, in a process of its own, makes the small one of it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from mengya.errors import UserError
from mengya.export.gguf.llama_cpp_process import LlamaCppProcess, require_llama_cpp
from mengya.export.gguf.tensor_types import FILE_TYPES, TypeName


def quantize_file(full: Path, path: Path, type_name: TypeName) -> None:
    """Make `path` of the F32 file `full`.

    Raises:
        UserError: llama.cpp is not installed, or refuses; with the last of its messages.
        OSError: the disk is full.
    """
    with LlamaCppProcess(require_llama_cpp(f"type={type_name}")) as process:
        kind = int(FILE_TYPES[type_name])
        try:
            process.ask("quantize", path=str(full), out=str(path), file_type=kind)
        except UserError as error:
            if "iostream error" not in str(error):
                raise
            no_space = errno.ENOSPC  # what it nearly always means: llama.cpp does not say
            raise OSError(no_space, os.strerror(no_space), str(path)) from error
