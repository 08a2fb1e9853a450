"""Push a folder that is proven to a hub.

Takes a folder with parity.json; gives the address it has then. Only what its proof was made of is sent.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mengya.errors import UserError
from mengya.export.hub.files import PushedFile, files_table, files_to_push
from mengya.export.hub.hub import Hub, explain
from mengya.export.hub.options import HubOptions
from mengya.export.hub.proven import check_proven
from mengya.runtime.hub.failure import HubFailure
from mengya.version import __version__

_GIVEN_BY_HUB = {".gitattributes", ".gitignore", "README.md", "configuration.json"}


def push_folder(hub: Hub, folder: Path, options: HubOptions) -> None:
    """Show what would be sent (dry_run), or send it and look at what arrived.

    Raises:
        UserError: the folder is not proven, the repository holds files and update is false, or the hub
            refuses; says what to type.
    """
    check_proven(folder)
    files = files_to_push(folder)
    if options.dry_run:
        _show(hub, files, options)
        return
    hub.check_ready()
    try:
        if not hub.create(options):
            _check_existing(hub, files, options)
        address = hub.upload(files, options, f"mengya {__version__}")
        _check_arrived(hub, files, options)
    except HubFailure as failure:
        raise explain(failure, hub, options, _again(hub, folder, options)) from None
    size = sum(file.size for file in files)
    Console(stderr=True).print(
        f"pushed {len(files)} files, {size:,} bytes: {address}", highlight=False, markup=False
    )


def _show(hub: Hub, files: Sequence[PushedFile], options: HubOptions) -> None:
    seen_by = "its owner alone" if options.private else "everybody"
    branch = f", branch {options.branch}" if options.branch else ""
    console = Console()
    console.print(
        f"{hub.endpoint}/{options.repo}{branch}; a new one is seen by {seen_by}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    console.print(files_table(files))
    console.print(
        f"Nothing was sent. To push, leave out {hub.key}.dry_run", highlight=False, markup=False
    )


def _check_existing(hub: Hub, files: Sequence[PushedFile], options: HubOptions) -> None:
    """One without other files is of an interrupted push, or was made by hand for this one."""
    there, private = hub.existing(options)
    if options.private and not private:
        raise UserError(
            f"{options.repo} is there already, and everybody can see it. If they may see this too, write "
            f"{hub.key}.private=false; else choose another {hub.key}.repo=OWNER/NAME"
        )
    sizes = {file.name: file.size for file in files}
    own = sorted(name for name, size in there.items() if sizes.get(name) != size)
    if not options.update and (own := [name for name in own if name not in _GIVEN_BY_HUB]):
        raise UserError(
            f"{options.repo} is there already, with other files ({', '.join(own[:3])}). Write "
            f"{hub.key}.update=true to add a commit to it (what was there stays in its history), or choose "
            f"another {hub.key}.repo=OWNER/NAME"
        )


def _check_arrived(hub: Hub, files: Sequence[PushedFile], options: HubOptions) -> None:
    there, _ = hub.existing(options)
    lost = [file.name for file in files if there.get(file.name) != file.size]
    if lost:
        raise HubFailure(
            f"the commit was made, but {len(lost)} files are not there as sent, such as {lost[0]}; a "
            ".gitignore in the repository can be the reason",
            400,
        )


def _again(hub: Hub, folder: Path, options: HubOptions) -> str:
    words = ["mengya", "export", str(folder), f"to={hub.key}", f"{hub.key}.repo={options.repo}"]
    if not options.private:
        words.append(f"{hub.key}.private=false")
    if options.branch:
        words.append(f"{hub.key}.branch={options.branch}")
    if options.update:
        words.append(f"{hub.key}.update=true")
    return shlex.join(words)
