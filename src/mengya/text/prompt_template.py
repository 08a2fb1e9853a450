"""Prompts as files: a system part, a line `---`, a user part with {{slots}}; ours, or the user's own.

What fills a slot is never looked at for slots again, so no document becomes part of a prompt's form.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mengya.errors import UserError

_SLOT = re.compile(r"\{\{(\w+)\}\}")
_RULE = re.compile(r"^---[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Template:
    """A prompt.

    Attributes:
        version: its name and the beginning of its SHA-256, which stand in the provenance of what it makes.
    """

    name: str
    system: str
    user: str
    version: str

    def messages(self, values: Mapping[str, object]) -> list[dict[str, str]]:
        """The system message, if there is one, and the user's with its slots filled."""
        return [*self.system_message(values), {"role": "user", "content": _fill(self.user, values)}]

    def system_message(self, values: Mapping[str, object]) -> list[dict[str, str]]:
        content = _fill(self.system, values)
        return [{"role": "system", "content": content}] if content else []


def read_template(
    name: str, file: Path, key: str, known: Collection[str], needed: Collection[str], ours: Path
) -> Template:
    """The prompt in a file; without a slot that is needed it is a system message alone.

    Args:
        key: what a user types to name the file.
        ours: the file to copy, which messages name.

    Raises:
        UserError: it cannot be read, has a slot that is not known, or lacks one that is needed.
    """
    try:
        text = file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise UserError(f"{key}: {file} is not UTF-8 text; save it as UTF-8") from None
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UserError(f"{key}: {file} is not a file; write its path, or copy {ours}") from None
    found = set(_SLOT.findall(text))
    if unknown := sorted(found - set(known)):
        listed = ", ".join(f"{{{{{slot}}}}}" for slot in sorted(known)) or "none"
        raise UserError(f"{key}: {file} has {{{{{unknown[0]}}}}}; known slots: {listed}")
    if missing := sorted(set(needed) - found):
        raise UserError(f"{key}: {file} has no {{{{{missing[0]}}}}}, where it is to be put")
    if not text:
        raise UserError(f"{key}: {file} is empty")
    parts = _RULE.split(text, maxsplit=1)
    system, user = ("", text) if len(parts) == 1 else parts
    if not needed:
        system, user = text, ""
    version = f"{name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return Template(name, system.strip(), user.strip(), version)


def _fill(text: str, values: Mapping[str, object]) -> str:
    return _SLOT.sub(lambda match: str(values[match[1]]), text)
