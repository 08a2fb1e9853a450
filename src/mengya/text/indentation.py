"""What counts as the indentation of a line.

A tab, or two spaces or more, before an ASCII character: one space is a slip of the pen, and Chinese
paragraphs that begin with spaces are prose, not code.
"""

from __future__ import annotations

import re

_INDENTED = re.compile(r"^(?:\t|  | \t)[ \t]*(?=[!-~])", re.MULTILINE)


def indentation(line: str) -> str:
    """The white space that an indented line begins with, "" for any other line."""
    found = _INDENTED.match(line)
    return found[0] if found else ""


def has_indentation(text: str) -> bool:
    """Whether any line of the text is indented."""
    return _INDENTED.search(text) is not None
