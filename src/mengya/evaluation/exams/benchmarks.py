"""The benchmarks by name: what the harness calls them, which of its files define them, how they are scored.

Knows no data and no model.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mengya.errors import UserError

Protocol = Literal["letters", "answers", "generation"]
"""letters: the likeliest of A, B, C, D after the question with its options; answers: the likeliest of the
options themselves; generation: what the model writes is checked."""


@dataclass(frozen=True)
class Benchmark:
    """One exam.

    Attributes:
        title: as its authors write it.
        protocols: the ways it can be asked; the first is the harness's own (ours where it has none).
        hub: the harness's task, group or tag, which loads its data from the Hub, or the data set of ours
            (definitions.HUB_DATA); None: local files only.
        file: the harness's definition for local files, {} being the subject; None: ours in definitions.py.
        any_subject: a subject that the harness has for sure, whose file serves those that it lacks.
        description: of such a subject, before the questions.
        metric: what an item is scored by, as the harness names it, in the first protocol.
        filter: of the harness, which takes the answer out of a text.
        code: what the model writes is a program that must run to be scored.
    """

    title: str
    protocols: tuple[Protocol, ...]
    hub: str | tuple[str, ...] | None
    file: str | None = None
    any_subject: str = ""
    description: str = ""
    metric: str = "acc"
    filter: str = "none"
    code: bool = False


BENCHMARKS: Mapping[str, Benchmark] = {
    "agieval": Benchmark(
        "AGIEval", ("answers", "letters"), "agieval", "agieval/{}.yaml", "aqua-rat"
    ),
    "aime24": Benchmark(
        "AIME 2024", ("generation",), "aime24", "aime/aime24.yaml", metric="exact_match"
    ),
    "belebele": Benchmark(
        "Belebele (zh)",
        ("letters", "answers"),
        "belebele_zho_Hans",
        "belebele/belebele_zho_Hans.yaml",
    ),
    "c3": Benchmark("C3", ("letters", "answers"), "clue/clue"),
    "ceval": Benchmark(
        "C-Eval",
        ("letters", "answers"),
        "ceval-valid",
        "ceval/ceval-valid_{}.yaml",
        "accountant",
        "以下是中国关于{}的单项选择题，请选出其中的正确答案。\n\n",
    ),
    "cmath": Benchmark("CMATH", ("generation",), None, metric="exact_match"),
    "cmmlu": Benchmark(
        "CMMLU",
        ("letters", "answers"),
        "cmmlu",
        "cmmlu/cmmlu_{}.yaml",
        "agronomy",
        "以下是关于{}的单项选择题，请直接给出正确答案的选项。\n\n",
    ),
    "cmrc": Benchmark("CMRC 2018", ("generation",), "clue/clue", metric="f1"),
    "gaokao": Benchmark(
        "GAOKAO (AGIEval)",
        ("answers", "letters"),
        tuple(
            f"agieval_gaokao_{name}"
            for name in ("biology", "chemistry", "chinese", "english", "geography", "history",
                         "mathcloze", "mathqa", "physics")
        ),
    ),
    "gaokao_bench": Benchmark("GAOKAO-Bench", ("letters",), None),
    "gpqa": Benchmark(
        "GPQA (diamond)",
        ("letters", "answers"),
        "gpqa_diamond_zeroshot",
        "gpqa/zeroshot/gpqa_diamond_zeroshot.yaml",
    ),
    "gsm8k": Benchmark(
        "GSM8K", ("generation",), "gsm8k", "gsm8k/gsm8k.yaml",
        metric="exact_match", filter="strict-match",
    ),
    "humaneval": Benchmark(
        "HumanEval", ("generation",), "openai/openai_humaneval", metric="pass@1", code=True
    ),
    "ifeval": Benchmark(
        "IFEval", ("generation",), "ifeval", "ifeval/ifeval.yaml", metric="prompt_level_strict_acc"
    ),
    "livecodebench": Benchmark("LiveCodeBench", ("generation",), None, metric="pass@1", code=True),
    "math500": Benchmark(
        "MATH-500", ("generation",), "hendrycks_math500", "hendrycks_math/hendrycks_math500.yaml",
        metric="exact_match",
    ),
    "mmlu": Benchmark(
        "MMLU",
        ("letters", "answers"),
        "mmlu",
        "mmlu/default/mmlu_{}.yaml",
        "anatomy",
        "The following are multiple choice questions (with answers) about {}.\n\n",
    ),
    "xcopa": Benchmark("XCOPA (zh)", ("answers",), "xcopa_zh", "xcopa/default_zh.yaml"),
    "xiezhi": Benchmark("Xiezhi", ("letters", "answers"), None),
    "xstorycloze": Benchmark(
        "XStoryCloze (zh)", ("answers",), "xstorycloze_zh", "xstorycloze/default_zh.yaml"
    ),
    "zhoblimp": Benchmark(
        "ZhoBLiMP", ("answers",), "zhoblimp", "zhoblimp/{}.yaml", "BA_meiba"
    ),
}  # fmt: skip


def find_benchmark(name: str) -> Benchmark:
    """
    Raises:
        UserError: there is none of this name, and no such path; lists those that there are.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    plain = name.lower().replace("-", "").replace("_", "").replace(" ", "")
    near = difflib.get_close_matches(plain, [n.replace("_", "") for n in BENCHMARKS], 1, 0.5)
    close = next((n for n in BENCHMARKS if near and n.replace("_", "") == near[0]), "")
    asked = "" if name == "list" else f"exams={name} is neither a benchmark nor a path"
    meant = f"; did you mean exams={close}?" if close and name != "list" else ""
    raise UserError(f"{asked}{meant}\n{benchmark_list()}".lstrip())


def benchmark_list() -> str:
    """One line a benchmark: its name, what it is, how it can be asked, whether the Hub has its data."""
    lines = [
        "exams=NAME loads a benchmark from the Hub, exams=FOLDER or exams=FILE reads it locally:"
    ]
    for name, each in BENCHMARKS.items():
        where = "Hub or local" if each.hub else "local files only"
        if name == "gaokao":
            where = "Hub only; local: gaokao_bench or agieval"
        ways = ", ".join(each.protocols)
        lines.append(f"  {name:<14}{each.title}: {ways}; {where}")
    return "\n".join(lines)
