"""What of a text is prose and what is code: blocks between Markdown fences, indented blocks, `inline code`.

Takes a text; gives its lines of prose, or its pieces. Text that is no Markdown has neither fences nor code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from mengya.text.indentation import indentation

_FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,})")
# A fenced block up to its end or that of the text; an indented block after a blank line; inline code.
_CODE = re.compile(
    r"^[ \t>]*(?P<fence>`{3,}|~{3,})[^\n]*\n(?:.*?\n)??[ \t>]*(?P=fence)[`~]*[ \t]*$"
    r"|^[ \t>]*(?:`{3,}|~{3,})[^`\n]*\n.*\Z"
    r"|(?:\A|(?<=\n\n))(?:(?:[ ]{4}|\t)[^\n]*(?:\n|\Z)|\n)+"
    r"|(?P<ticks>`+)(?!`)[^\n]+?(?<!`)(?P=ticks)(?!`)",
    re.MULTILINE | re.DOTALL,
)


@lru_cache(maxsize=2)
def prose(text: str) -> str:
    """The text without fenced blocks and indented lines of code.

    That of the last text is kept, because several filters ask for it in turn.
    """
    indented = "\n  " in text or "\n\t" in text or "\n \t" in text
    if not indented and "```" not in text and "~~~" not in text:
        return text
    lines = (line for line, fenced in marked_lines(text) if not fenced)
    return "\n".join(line for line in lines if not indented or not indentation(line))


@lru_cache(maxsize=2)
def prose_lines(text: str) -> list[str]:
    """The lines of `prose` that hold anything, stripped."""
    return [stripped for line in prose(text).split("\n") if (stripped := line.strip())]


def marked_lines(text: str) -> Iterator[tuple[str, bool]]:
    """Every line, and whether it is a fence or stands between two."""
    fence = ""
    for line in text.split("\n"):
        found = _FENCE.match(line) if "```" in line or "~~~" in line else None
        if found is None:
            yield line, bool(fence)
        else:
            yield line, True
            if not fence:
                fence = found[1]
            elif found[1].startswith(fence):
                fence = ""


def change_prose(text: str, change: Callable[[str], str]) -> str:
    """The text with every piece that is not code changed; code is given back to the letter."""
    if "`" not in text and "~~~" not in text and "\n\n    " not in text and "\n\n\t" not in text:
        return change(text)
    pieces, end = [], 0
    for code in _CODE.finditer(text):
        pieces += [change(text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*pieces, change(text[end:])])
