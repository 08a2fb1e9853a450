"""What code can check of an answer: lengths, words, lists, formats, beginnings, verse.

A check takes the answer, stripped of white space around it, and what is wanted; it says yes or no. CHECKS has
them by the names that instructions.yaml uses.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mengya.text.units import HAN, count_units

Wanted = int | Sequence[int | None]
"""Exactly so many; or at least and at most, None where there is no bound."""

_SENTENCE_END = re.compile(r"(?:[。！？!?…]+|\.(?=\s|$))[”’」』）)\"']*")
_NUMBERED = re.compile(r"^\s*(\d+)\s*[.、．)）]", re.MULTILINE)
_BULLET = re.compile(r"^\s*[-*•·]\s+\S", re.MULTILINE)
_HEADING = re.compile(r"^##\s+\S", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*")
_BOOK_TITLE = re.compile("《[^《》\n]+》")
_FENCE = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
_TABLE_RULE = re.compile(r"^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$")
_CLAUSE_END = re.compile("[，。！？；、,.!?;：:\\s]+")
_CLASSES = {
    "digits and latin": re.compile(r"[0-9A-Za-z０-９]"),
    "punctuation": None,  # by Unicode category
}


def sentences(text: str, wanted: Wanted) -> bool:
    """A sentence ends with 。！？ or …, or with the text."""
    return _within(sum(count_units(part) > 0 for part in _SENTENCE_END.split(text)), wanted)


def characters(text: str, wanted: Wanted) -> bool:
    """As Chinese writers count them: without punctuation, a Latin word or a number as one."""
    return _within(count_units(text), wanted)


def lines(text: str, wanted: Wanted) -> bool:
    """Lines that are not blank."""
    return _within(len(_lines(text)), wanted)


def paragraphs(text: str, wanted: Wanted) -> bool:
    """Parts with blank lines between them."""
    return _within(sum(map(bool, map(str.strip, re.split(r"\n\s*\n", text)))), wanted)


def includes(text: str, words: Sequence[str]) -> bool:
    return all(word in text for word in words)


def includes_any(text: str, words: Sequence[str]) -> bool:
    return any(word in text for word in words)


def excludes(text: str, words: Sequence[str]) -> bool:
    return not any(word in text for word in words)


def occurs(text: str, counts: Mapping[str, Wanted]) -> bool:
    return all(_within(text.count(word), wanted) for word, wanted in counts.items())


def in_order(text: str, words: Sequence[str]) -> bool:
    """Each word after the one before it."""
    place = 0
    for word in words:
        found = text.find(word, place)
        if found < 0:
            return False
        place = found + len(word)
    return True


def numbered(text: str, wanted: Wanted) -> bool:
    """Lines that begin with 1., 2., ... in this order."""
    numbers = [int(number) for number in _NUMBERED.findall(text)]
    return _within(len(numbers), wanted) and numbers == list(range(1, len(numbers) + 1))


def bullets(text: str, wanted: Wanted) -> bool:
    """Lines that begin with -, * or a dot, and a space."""
    return _within(len(_BULLET.findall(text)), wanted)


def headings(text: str, wanted: Wanted) -> bool:
    """Markdown headings of the second level."""
    return _within(len(_HEADING.findall(text)), wanted)


def bold(text: str, wanted: Wanted) -> bool:
    return _within(len(_BOLD.findall(text)), wanted)


def book_titles(text: str, wanted: Wanted) -> bool:
    """Different titles in 《》."""
    return _within(len(set(_BOOK_TITLE.findall(text))), wanted)


def table(text: str, wanted: Mapping[str, Wanted]) -> bool:
    """A Markdown table with so many columns, and rows under its head."""
    rows = [line.strip() for line in _lines(text) if "|" in line]
    rule = next((i for i, row in enumerate(rows) if _TABLE_RULE.match(row)), 0)
    if rule != 1:
        return False
    widths = [len(row.removeprefix("|").removesuffix("|").split("|")) for row in rows]
    return (
        len(set(widths)) == 1
        and _within(widths[0], wanted["columns"])
        and _within(len(rows) - 2, wanted["rows"])
    )


def json_keys(text: str, keys: Sequence[str]) -> bool:
    """Nothing but a JSON object, in a code block or not, with exactly these keys."""
    value = _json(text)
    return isinstance(value, dict) and sorted(value) == sorted(keys)


def json_list(text: str, wanted: Wanted) -> bool:
    """Nothing but a JSON array of so many different values."""
    value = _json(text)
    return isinstance(value, list) and _within(len({repr(one) for one in value}), wanted)


def python(text: str, function: str) -> bool:
    """A code block of Python that parses and defines the function with a body; it is not run."""
    for block in _FENCE.findall(text):
        try:
            tree = ast.parse(block)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # what ast.parse may raise
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == function:
                return not isinstance(node.body[-1], ast.Pass)
    return False


def starts_with(text: str, beginning: str) -> bool:
    """... and something follows."""
    return text.startswith(beginning) and len(text) > len(beginning)


def ends_with(text: str, end: str) -> bool:
    """... and something stands before; punctuation in its half-width form is the same."""
    narrow = {"！": "!", "？": "?"}.get(end, end)
    return text.endswith((end, narrow)) and len(text) > len(end)


def each_line_starts_with(text: str, beginning: str) -> bool:
    return all(line.strip().startswith(beginning) for line in _lines(text))


def each_line_includes(text: str, word: str) -> bool:
    return all(word in line for line in _lines(text))


def only(text: str, choices: Sequence[str]) -> bool:
    """One of the choices and nothing else, punctuation around it apart."""
    return text.strip("。.！!“”\"'「」 ") in choices


def matches(text: str, pattern: str) -> bool:
    return re.fullmatch(pattern, text) is not None


def without(text: str, kind: str) -> bool:
    """No character of the kind: "punctuation", or "digits and latin"."""
    if (pattern := _CLASSES[kind]) is None:
        return not any(unicodedata.category(character).startswith("P") for character in text)
    return pattern.search(text) is None


def english(text: str, wanted: Wanted) -> bool:
    """ASCII alone, so many words."""
    return text.isascii() and _within(len(re.findall(r"[A-Za-z]+(?:'[a-z]+)?", text)), wanted)


def uppercase(text: str, wanted: bool) -> bool:
    return text.isupper() == wanted


def verse(text: str, wanted: Mapping[str, int]) -> bool:
    """So many clauses, each of so many Chinese characters."""
    clauses = [clause for clause in _CLAUSE_END.split(text) if clause]
    size = wanted["characters"]
    return len(clauses) == wanted["lines"] and all(
        re.fullmatch(f"[{HAN}]{{{size}}}", clause) for clause in clauses
    )


def separated(text: str, wanted: Mapping[str, Any]) -> bool:
    """So many different parts between separators."""
    parts = [part.strip("。. ") for part in text.split(wanted["by"])]
    return all(parts) and len(parts) == len(set(parts)) and _within(len(parts), wanted["parts"])


Check = Callable[[str, Any], bool]

CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        bold, book_titles, bullets, characters, each_line_includes, each_line_starts_with, ends_with, english,
        excludes, headings, in_order, includes, includes_any, json_keys, json_list, lines, matches, numbered,
        occurs, only, paragraphs, python, sentences, separated, starts_with, table, uppercase, verse, without,
    )
}  # fmt: skip


def failed_checks(text: str, wanted: Mapping[str, Any]) -> list[str]:
    """The names of the checks that an answer does not meet.

    Raises:
        KeyError: there is no such check.
    """
    text = text.strip()
    return [name for name, value in wanted.items() if not CHECKS[name](text, value)]


def _within(count: int, wanted: Wanted) -> bool:
    if isinstance(wanted, int):
        return count == wanted
    least, most = wanted
    return (least is None or count >= least) and (most is None or count <= most)


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _json(text: str) -> Any:
    if block := _FENCE.fullmatch(text):
        text = block[1]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
