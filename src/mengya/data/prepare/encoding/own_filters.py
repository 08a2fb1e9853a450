"""A user's own filters: functions named by import path, such as `my_filters:no_poems`.

Takes the path; gives a filter whose every fault names it. The module is looked for in the current folder,
then among what is installed. Importing it is what the user asked for; nothing in data is ever imported.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mengya.errors import UserError, shown

if TYPE_CHECKING:
    from mengya.text.filters.pipeline import Filter

KEY = "filters.own"
_PATH = re.compile(r"(?:[^\W\d]\w*)(?:\.[^\W\d]\w*)*:(?:[^\W\d]\w*)(?:\.[^\W\d]\w*)*")
_REASON = re.compile(r"[\w-]{1,40}")
_USE = (
    "a function that takes a text and gives None to keep it, or why it is dropped, such as 'poem'"
)
_imported: dict[str, str] = {}  # module -> SHA-256 of its file when it was imported


@dataclass(frozen=True, slots=True)
class OwnFilter:
    """A function to be called in every process.

    Attributes:
        path: `module:function`; folder: where the module is looked for first.
        sha256: of the file of the module.
    """

    path: str
    folder: str
    sha256: str

    def load(self) -> Filter:
        """The function, whose faults become `UserError`s.

        Raises:
            UserError: this machine has another file of that name, or none.
        """
        function, sha256 = _load(self.path, Path(self.folder))
        if sha256 != self.sha256:
            raise UserError(
                f"{KEY} {self.path}: the file in {self.folder} is not the one that `mengya prepare` started "
                "with; leave it unchanged while it runs, and copy it to every machine of a cluster"
            )
        return _Checked(self.path, function)


def check_path(path: str) -> str:
    """Refuse what is no import path.

    Raises:
        ValueError: with the right spelling.
    """
    if not _PATH.fullmatch(path) or path.partition(":")[0].endswith(".py"):
        module = path.replace("/", ".").replace(".py", "").lstrip(".")
        module, _, name = module.rpartition("." if ":" not in module else ":")
        near = f"{module}:{name}"
        example = near if _PATH.fullmatch(near) else "my_filters:no_poems"
        raise ValueError(f"{path!r} must be MODULE:FUNCTION; write {example}")
    return path


def find_own_filter(path: str, folder: Path) -> OwnFilter:
    """The filter of an import path.

    Raises:
        UserError: there is no such module or function, or the module cannot be imported.
    """
    _, sha256 = _load(path, folder)
    return OwnFilter(path, str(folder), sha256)


class _Checked:
    def __init__(self, path: str, function: Callable[[str], Any]) -> None:
        self._path, self._function = path, function

    def __call__(self, text: str) -> str | None:
        """Raises:
        UserError: the function raised, or gave no reason.
        """
        try:
            reason = self._function(text)
        except (Exception, SystemExit) as error:
            raise UserError(
                f"{KEY} {self._path} failed: {type(error).__name__}: {error}"
            ) from error
        if reason is None or (isinstance(reason, str) and _REASON.fullmatch(reason)):
            return reason
        kind = type(reason).__name__
        raise UserError(
            f"{KEY} {self._path} returned {shown(reason)} ({kind}); it must return None to keep a text, or "
            "a word of at most 40 letters that says why it is dropped, such as 'poem'"
        )


def _load(path: str, folder: Path) -> tuple[Callable[[str], Any], str]:
    """The function, and the SHA-256 of the file of its module."""
    name, _, attribute = path.partition(":")
    module = _import(path, name, folder)
    function: Any = module
    for part in attribute.split("."):
        if not hasattr(function, part):
            names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            has = f"it has {', '.join(sorted(names)[:10])}" if names else "it has no functions"
            raise UserError(f"{KEY} {path}: {module.__file__} has no {attribute!r}; {has}")
        function = getattr(function, part)
    if not callable(function) or isinstance(function, type):
        raise UserError(f"{KEY} {path} is {shown(function)}, not a function; name {_USE}")
    return function, _sha256(module)


def _import(path: str, name: str, folder: Path) -> ModuleType:
    """The module, read again where its file has changed since this process imported it."""
    top = name.partition(".")[0]
    own = (folder / f"{top}.py").is_file() or (folder / top).is_dir()
    place = str(folder)
    before = list(sys.path)
    if own:
        sys.path.insert(0, place)
    try:
        known = sys.modules.get(name)
        importlib.invalidate_caches()
        module = importlib.import_module(name)
        if known is not None and own and _imported.get(name) != _sha256(module):
            module = importlib.reload(module)
    except (Exception, SystemExit) as error:
        missing = isinstance(error, ModuleNotFoundError) and name.startswith(str(error.name))
        if missing:
            raise UserError(
                f"{KEY} {path}: no module {name!r} in {folder}, nor installed; write the name of a file "
                f"there, without .py, before the colon"
            ) from None
        raise UserError(
            f"{KEY} {path}: {name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path[:] = before
        if own and place not in sys.path:
            sys.path.append(place)  # for what it imports later
    if not getattr(module, "__file__", None):
        raise UserError(f"{KEY} {path}: {name} has no file; name {_USE}, in a file of your own")
    _imported[name] = _sha256(module)
    return module


def _sha256(module: ModuleType) -> str:
    return hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
