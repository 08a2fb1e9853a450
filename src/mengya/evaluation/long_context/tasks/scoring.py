"""An answer to a LongBench-style item -> its score from 0 to 1, by the kind of its data set.

The rules are those of LongBench's metrics.py and eval.py (Bai et al. 2024, arXiv:2308.14508, appendix B;
github.com/THUDM/LongBench), oddities included, so that the figures are comparable. Chinese is compared by
characters or by the words of jieba; LongBench's figures need the latter.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Literal

from mengya.evaluation.long_context.tasks.kinds import Kind
from mengya.evaluation.long_context.tasks.overlap import f1, rouge_l
from mengya.runtime.optional import require

Words = Literal["characters", "jieba"]
Cut = Callable[[str], list[str]]

# Full-width forms, CJK and general punctuation, as far as LongBench leaves them out: not ．, 《 and 〈.
_CHINESE = "！-－ ／ ：-＠ ［-｀ ｛-､ 、-〃 》-』 【-】 〔-〟 〰 〾-〿 –-— ‘-’ ‛-‟ …-‧ ﹏"
_RANGES = [(span[0], span[-1]) for span in _CHINESE.split()]
_IGNORED = {chr(c) for low, high in _RANGES for c in range(ord(low), ord(high) + 1)}
_IGNORED |= set(string.punctuation)


def score(
    kind: Kind,
    prediction: str,
    answers: Sequence[str],
    all_classes: Sequence[str] = (),
    cut: Cut = list,
    first_line: bool = False,
) -> float:
    """The best score over the true answers.

    Args:
        all_classes: of a classification: every class there is.
        cut: a Chinese text -> what is compared (`cutter`).
        first_line: only the first line of the prediction counts, line breaks before it left out.
    """
    if first_line:
        prediction = prediction.lstrip("\n").split("\n")[0]
    if kind == "classification":
        return max(_classification(prediction, answer, all_classes) for answer in answers)
    rules: dict[str, Callable[[str, str], float]] = {
        "f1_en": lambda p, t: f1(_english_words(p), _english_words(t)),
        "f1_zh": lambda p, t: f1(_chinese_units(p, cut), _chinese_units(t, cut)),
        "rouge_en": lambda p, t: rouge_l(_sentences(p), _sentences(t)),
        "rouge_zh": lambda p, t: rouge_l(
            _sentences(" ".join(cut(p))), _sentences(" ".join(cut(t)))
        ),
        "count": _numbers,
        "retrieval_en": lambda p, t: _numbers(p, _paragraph(t, r"Paragraph (\d+)")),
        "retrieval_zh": lambda p, t: _numbers(p, _paragraph(t, r"段落(\d+)")),
        "code": _code,
    }
    return max(rules[kind](prediction, answer) for answer in answers)


def cutter(words: Words) -> Cut:
    """What cuts Chinese text.

    Raises:
        UserError: jieba is not installed.
    """
    if words == "characters":
        return list
    jieba = require("jieba", "longbench")
    jieba.setLogLevel("ERROR")  # it says on stderr that it loads its dictionary
    return jieba.lcut


def _english_words(text: str) -> list[str]:
    """Lower case, without punctuation and articles: as SQuAD normalizes."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def _chinese_units(text: str, cut: Cut) -> list[str]:
    """Lower case, without punctuation and spaces."""
    units = ("".join(c for c in unit.lower() if c not in _IGNORED) for unit in cut(text))
    return [kept for unit in units if (kept := "".join(unit.split()))]


def _sentences(text: str) -> list[list[str]]:
    """Words between spaces, in the parts between full stops of ASCII, as the package `rouge` splits."""
    return [" ".join(part.split()).split(" ") for part in text.split(".") if part]


def _classification(prediction: str, truth: str, all_classes: Sequence[str]) -> float:
    """1 / the number of classes that the prediction names, if the right one is among them.

    A class that is a part of the right one's name does not count. As in LongBench, of two such classes that
    follow one another the second one is kept.
    """
    named = [name for name in all_classes if name in prediction]
    for name in named:
        if name in truth and name != truth:
            named.remove(name)  # while it is gone through, as there
    return 1 / len(named) if truth in named else 0.0


def _numbers(prediction: str, truth: str) -> float:
    """The share of the right number among all numbers of the prediction."""
    numbers = re.findall(r"\d+", prediction)
    return numbers.count(truth) / len(numbers) if numbers else 0.0


def _paragraph(truth: str, form: str) -> str:
    found = re.search(form, truth)
    assert found is not None  # records.py refuses others
    return found[1]


def _code(prediction: str, truth: str) -> float:
    """Similarity of the first line that is no comment and no mark of a code block, to the percent."""
    lines = prediction.lstrip("\n").split("\n")
    line = next((line for line in lines if not re.search(r"`|#|//", line)), "")
    if not line or not truth:
        return 0.0
    return round(100 * SequenceMatcher(None, line, truth).ratio()) / 100
