"""Which known forms a record that fits none of them comes nearest to."""

from __future__ import annotations

import difflib
from typing import Any

from mengya.data.ingest.schema import QUESTION_ANSWER

_CONVERSATION = (("messages",), ("conversations",), ("instruction", "output"), *QUESTION_ANSWER)
_PREFERENCE = (("prompt", "chosen", "rejected"), ("q", "pos", "neg"), ("instruction", "output"))
_NEAR = 0.8  # of difflib's ratio: reponse is response, and text is not context


def nearest_forms(kind: str, value: Any) -> str:
    """ "; nearest is {instruction, output}" by the names of its fields, or nothing."""
    if kind == "text" or not isinstance(value, dict):
        return ""
    names = [name for name in value if isinstance(name, str)]
    forms = _CONVERSATION if kind == "conversation" else _PREFERENCE
    scores = {form: sum(_has(names, field) for field in form) / len(form) for form in forms}
    best = max(scores, key=lambda form: scores[form])
    return f"; nearest is {{{', '.join(best)}}}" if scores[best] > 0 else ""


def _has(names: list[str], field: str) -> bool:
    return bool(difflib.get_close_matches(field, [n.lower() for n in names], n=1, cutoff=_NEAR))
