"""The pages of a printed document -> running text.

Lines that were broken to fit the page are joined again, running heads and page numbers are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

_NUMBER = re.compile(r"\d+|[ivxlc]+\b|[〇零一二三四五六七八九十百]+", re.IGNORECASE)
_PAGE_NUMBER = re.compile(
    r"(?:第|-|—|–|·|page|p\.)?\s*(?:\d{1,4}|[ivxlc]{1,6})\s*(?:页|-|—|–|·)?(?:\s*/\s*\d{1,4})?",
    re.IGNORECASE,
)
_SENTENCE_END = tuple("。！？；：…”』」）!?;:.)")
_NEW_PARAGRAPH = re.compile(
    r"\s{2,}|\u3000|[•·●○■◆▪-]\s|#|第[\d一二三四五六七八九十百]+[章节条]"
    r"|[（(]?[\d一二三四五六七八九十]{1,3}[）).、．]"
)
_EDGE = 2  # lines at the top and the bottom of a page where running heads are
_FULL = 0.8  # a line this long, of the usual length, was broken by the page's width


def join_pages(pages: list[str]) -> str:
    """The text of all pages, one line a paragraph.

    Args:
        pages: the lines of each page, as they are printed.
    """
    split = [[line.rstrip() for line in page.splitlines() if line.strip()] for page in pages]
    heads = _running_heads(split)
    lines = [line for page in split for line in _without_heads(page, heads)]
    if not lines:
        return ""
    width = sorted(map(len, lines))[int(0.9 * (len(lines) - 1))]
    paragraphs = [lines[0].strip()]
    for before, line in pairwise(lines):
        ended = len(before) < _FULL * width or before.endswith(_SENTENCE_END)
        if ended or _NEW_PARAGRAPH.match(line):
            paragraphs.append(line.strip())
        else:
            paragraphs[-1] = _joined(paragraphs[-1], line.strip())
    return "\n".join(paragraphs)


def _running_heads(pages: list[list[str]]) -> set[str]:
    """What stands at the edge of half the pages, three at least, but for its numbers; never sentences."""
    edges = ([line for line in _edges(page) if not line.endswith(_SENTENCE_END)] for page in pages)
    seen = Counter(shape for lines in edges for shape in set(map(_shape, lines)))
    least = max(3, len(pages) / 2)
    return {shape for shape, count in seen.items() if count >= least}


def _without_heads(page: list[str], heads: set[str]) -> list[str]:
    last = len(page) - _EDGE
    return [
        line
        for at, line in enumerate(page)
        if _EDGE <= at < last or not (_shape(line) in heads or _PAGE_NUMBER.fullmatch(line.strip()))
    ]


def _edges(page: list[str]) -> list[str]:
    return page[:_EDGE] + page[max(_EDGE, len(page) - _EDGE) :]


def _shape(line: str) -> str:
    return _NUMBER.sub("0", "".join(line.split()))


def _joined(text: str, line: str) -> str:
    """Chinese without a space; a word that was hyphenated is one again."""
    if text.endswith("-") and text[-2:-1].isalpha() and line[:1].islower():
        return text[:-1] + line
    return f"{text} {line}" if text[-1:].isascii() and line[:1].isascii() else text + line
