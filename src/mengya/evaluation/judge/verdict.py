"""A reply of the judge -> its verdict, read strictly: what is not in the form asked for is no verdict."""

from __future__ import annotations

import re
from typing import Literal

from mengya.endpoint.messages import Completion
from mengya.text.thinking import without_thinking

Verdict = Literal["first", "second", "tie"]
Bad = Literal["empty", "cut", "refused", "rejected", "no_verdict", "several_verdicts", "no_reply"]
"""Why there is no verdict: the problems of a completion; no line of the form at the end; lines that
contradict one another; no completion at all (given up, or the cap was reached)."""

_LINE = re.compile(r"[\s*#>`]*裁决\s*[:：]\s*[*【\[「“\"]*\s*(甲|乙|平)\s*[】\]」”\"]*[。.\s*`]*")
_SHOWN: dict[str, Verdict] = {"甲": "first", "乙": "second", "平": "tie"}


def read_verdict(completion: Completion | None) -> tuple[Verdict | None, Bad | None]:
    """The verdict on the answers as they were shown, or why there is none.

    The last line says 裁决：甲, 裁决：乙 or 裁决：平, maybe in Markdown; no line before says another.
    """
    if completion is None:
        return None, "no_reply"
    if completion.problem is not None:
        return None, completion.problem
    lines = [line for line in without_thinking(completion.text).splitlines() if line.strip()]
    found = [match[1] for line in lines if (match := _LINE.fullmatch(line))]
    if len(set(found)) > 1:
        return None, "several_verdicts"
    if not found or not _LINE.fullmatch(lines[-1]):
        return None, "no_verdict"
    return _SHOWN[found[0]], None
