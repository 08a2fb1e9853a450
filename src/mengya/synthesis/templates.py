"""Prompts as files: a system part, a line `---`, a user part with {{slots}}; ours, or the user's own.

What fills a slot is never looked at for slots again, so no document becomes part of a prompt's form.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mengya.endpoint.messages import ChatMessage
from mengya.errors import UserError

_FOLDER = Path(__file__).parent / "prompts"
_SLOT = re.compile(r"\{\{(\w+)\}\}")
_RULE = re.compile(r"^---[ \t]*$", re.MULTILINE)
SLOTS = {
    "qa": {"passage", "count"},
    "qa_turns": {"passage", "count"},
    "instructions": {"examples", "count"},
    "answer": set[str](),
    "follow_up": {"conversation"},
    "paraphrase": {"question", "count"},
}
"""The slots that each prompt may have."""
_REQUIRED = {
    "qa": "passage", "qa_turns": "passage", "instructions": "examples",
    "follow_up": "conversation", "paraphrase": "question",
}  # fmt: skip


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

    def messages(self, values: Mapping[str, object]) -> list[ChatMessage]:
        """The system message, if there is one, and the user's with its slots filled."""
        return [*self.system_message(values), {"role": "user", "content": _fill(self.user, values)}]

    def system_message(self, values: Mapping[str, object]) -> list[ChatMessage]:
        content = _fill(self.system, values)
        return [{"role": "system", "content": content}] if content else []


def load_template(name: str, path: Path | None = None) -> Template:
    """The prompt of that name, from `path` when the user has an own one.

    Raises:
        UserError: it cannot be read, has a slot that is not known, or lacks the one that matters.
    """
    file = path or _FOLDER / f"{name}.md"
    try:
        text = file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise UserError(f"prompts.{name}: {file} is not UTF-8 text; save it as UTF-8") from None
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UserError(
            f"prompts.{name}: {file} is not a file; write its path, or copy {_FOLDER / f'{name}.md'}"
        ) from None
    known, found = SLOTS[name], set(_SLOT.findall(text))
    if unknown := sorted(found - known):
        listed = ", ".join(f"{{{{{slot}}}}}" for slot in sorted(known)) or "none"
        raise UserError(f"prompts.{name}: {file} has {{{{{unknown[0]}}}}}; known slots: {listed}")
    needed = _REQUIRED.get(name)
    if needed is not None and needed not in found:
        raise UserError(f"prompts.{name}: {file} has no {{{{{needed}}}}}, where it is to be put")
    if not text:
        raise UserError(f"prompts.{name}: {file} is empty")
    parts = _RULE.split(text, maxsplit=1)
    system, user = ("", text) if len(parts) == 1 else parts
    if needed is None:  # only a system message
        system, user = text, ""
    version = f"{name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return Template(name, system.strip(), user.strip(), version)


def _fill(text: str, values: Mapping[str, object]) -> str:
    return _SLOT.sub(lambda match: str(values[match[1]]), text)
