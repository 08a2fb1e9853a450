"""Tables and plain text in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def escape_markdown(text: object) -> str:
    """Text that means itself in Markdown, in a table cell as well: one line, without markup and HTML."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]<>#|~!&$])", r"\\\1", line)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """A table of unescaped cells; the first `left` columns are text, the others numbers."""
    ruler = ["---" if column < left else "---:" for column in range(len(header))]
    cells = [[escape_markdown(cell) for cell in row] for row in (header, *rows)]
    lines = [cells[0], ruler, *cells[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
