"""The data sets that are known by name: those of this package, then the user's, which win.

The user's are in ~/.config/mengya/data.yaml (or below XDG_CONFIG_HOME), in the file that MENGYA_REGISTRY
names, and in the file that `registry=` names, the last of these first. Each is a mapping of names to the
fields of `Corpus`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mengya.config import load_config
from mengya.data.hub.corpus import Corpus
from mengya.errors import UserError
from mengya.runtime.yaml_values import load_yaml, within_depth

OWN = Path(__file__).with_name("corpora")
VARIABLE = "MENGYA_REGISTRY"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def load_registry(registry: Path | None = None) -> dict[str, Corpus]:
    """Name -> data set, in order of kind and name.

    Raises:
        UserError: with every unknown key, wrong value and name that is given twice, of all files.
    """
    found: dict[str, Corpus] = {}
    problems: list[str] = []
    for file in [*sorted(OWN.glob("*.yaml")), *_user_files(registry)]:
        found |= _read(file, problems)
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise UserError(f"{len(problems)} problems in the registry of data sets:\n{lines}")
    kinds = ("text", "conversation", "preference", "exam")
    return dict(sorted(found.items(), key=lambda item: (kinds.index(item[1].kind), item[0])))


def find_corpus(name: str, registry: Path | None = None) -> Corpus:
    """The data set of that name.

    Raises:
        UserError: there is none; says which are near.
    """
    known = load_registry(registry)
    if name in known:
        return known[name]
    inside = [other for other in known if name.lower() in other]
    near = inside[:3] or difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise UserError(
        f"no data set is called {name!r}; {hint}`mengya data list` shows all names; any other one of a "
        "hub is named OWNER/NAME"
    )


def _user_files(registry: Path | None) -> list[Path]:
    """Of the user, the weakest first."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser())
    named = [Path(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else []
    named += [registry] if registry is not None else []
    for file in named:
        if not file.is_file():
            raise UserError(f"the registry {file} does not exist; check registry= and {VARIABLE}")
    return [file for file in [home / "mengya" / "data.yaml", *named] if file.is_file()]


def _read(file: Path, problems: list[str]) -> dict[str, Corpus]:
    """The data sets of one file; what is wrong with it is added to `problems`."""
    found: dict[str, Corpus] = {}
    try:
        for name, line, values in _entries(file.read_text(encoding="utf-8")):
            where = f"{file.name}:{line}: {name}"
            if name in found:
                problems.append(f"{where} is given twice; remove one")
            elif not _NAME.fullmatch(name):
                problems.append(f"{where} is no name: write small letters, digits, -, _ and .")
            elif not isinstance(values, dict):
                problems.append(f"{where} must be a mapping of keys to values")
            else:
                found[name] = _corpus(where, values, problems)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        problems.append(f"{file} cannot be read as YAML: {' '.join(str(error).split())}")
    return {name: corpus for name, corpus in found.items() if corpus is not None}


def _entries(text: str) -> Iterator[tuple[str, int, Any]]:
    """(name, line, values) of every entry, those of a name that is given twice as well."""
    node = within_depth(lambda: yaml.compose(text, yaml.SafeLoader))
    if node is None:
        return
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("it must be a mapping of names to data sets")
    try:
        known = load_yaml(text)
    except yaml.YAMLError:  # a key is given twice somewhere: one entry after the other
        known = None
    for key, value in node.value:
        name = str(key.value)
        values = known.get(name) if known is not None else load_yaml(yaml.serialize(value))
        yield name, key.start_mark.line + 1, values


def _corpus(where: str, values: dict[str, Any], problems: list[str]) -> Any:
    try:
        return load_config(Corpus, None, values)
    except UserError as error:
        for line in str(error).splitlines()[1:]:
            problems.append(f"{where}: {line.strip().removeprefix('- ')}")
        return None
