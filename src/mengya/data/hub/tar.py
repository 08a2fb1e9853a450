"""The data files of a tar archive, as a few corpora are published: nothing else in it is written.

The library's own extraction is not used: a member becomes a plain file of its name below the folder, or the
archive is refused. No link is made or followed, and no owner, mode or time is taken over.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO

from mengya.data.hub.data_hub import check_name, is_table
from mengya.errors import UserError

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MAX_RATIO = 50  # bytes unpacked for a byte of the archive: text has 3 to 10, a bomb a thousand
_SMALL = 16 << 20  # bytes: below that the ratio says nothing
_BLOCK = 1 << 20
_DAMAGE = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError)


def is_tar(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


def unpack_tar(archive: Path, folder: Path, repo: str, taken: Collection[str] = ()) -> list[str]:
    """Write the data files below `folder`, some of which it may hold from a call that was cut short.

    Args:
        taken: names below the folder that other files have.

    Returns:
        The names there, sorted.

    Raises:
        UserError: it is no archive or is damaged, has no data file, unpacks to too much, or a data file is a
            link, has a name that leads out of the folder, or one that is taken.
    """
    left = max(_SMALL, MAX_RATIO * archive.stat().st_size)
    limit, written = left, list[str]()
    try:
        with tarfile.open(archive, "r|*") as opened:
            for member in opened:
                name = member.name.removeprefix("./")
                if member.isdir() or not is_table(name):
                    continue
                check_name(name, repo)
                source = opened.extractfile(member) if member.isreg() else None
                if source is None:
                    raise UserError(
                        f"{archive.name} of {repo} holds {name} as a link, not as a file"
                    )
                if name in taken or name in written:
                    raise UserError(
                        f"{archive.name} of {repo} holds {name}, which is there already"
                    )
                left -= _write(source, folder / name, left)
                if left < 0:
                    raise UserError(
                        f"{archive.name} of {repo} unpacks to more than {limit >> 20} MiB, {MAX_RATIO} times "
                        f"its size, which text does not: look into it with tar -tvf {archive}"
                    )
                written.append(name)
    except _DAMAGE as error:
        raise UserError(f"{archive.name} of {repo} cannot be unpacked: {error}") from None
    if not written:
        raise UserError(f"{archive.name} of {repo} holds no data file: name others with files=")
    return sorted(written)


def _write(source: IO[bytes], path: Path, left: int) -> int:
    """Copy one file until it is larger than what is left; its size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with path.open("wb") as file:
        while size <= left and (block := source.read(_BLOCK)):
            size += len(block)
            file.write(block)
    return size
