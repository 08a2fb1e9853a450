"""A chat template as programs other than transformers read it.

`{% generation %}`, which marks what a model itself writes, is an extension of transformers: plain Jinja
stops at it.
"""

from __future__ import annotations

import re

_MARK = re.compile(r"\{%([-+]?)\s*((?:end)?generation)\s*([-+]?)%\}")


def without_generation_marks(template: str) -> str:
    """The template with each mark as a comment, which renders the same: comments trim space as tags do."""
    return _MARK.sub(r"{#\1 \2 \3#}", template)
