"""The prompts of `mengya synth` and `mengya identity`: ours, or the user's own."""

from __future__ import annotations

from pathlib import Path

from mengya.text.prompt_template import Template, read_template

_FOLDER = Path(__file__).parent / "prompts"
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


def load_template(name: str, path: Path | None = None) -> Template:
    """The prompt of that name, from `path` when the user has an own one.

    Raises:
        UserError: as `read_template`.
    """
    ours = _FOLDER / f"{name}.md"
    needed = [_REQUIRED[name]] if name in _REQUIRED else []
    return read_template(name, path or ours, f"prompts.{name}", SLOTS[name], needed, ours)
