"""Task definitions, in the harness's form, of what lm-evaluation-harness 0.4.13 has no definition for.

OWN has the benchmarks that the harness lacks, or whose file needs the network when it is read (HumanEval).
PROTOCOLS has what changes of a definition when it is asked by another protocol than its own: the prompts of
`answers` are those of the harness's mmlu_continuation, in Chinese where the exam is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mengya.evaluation.exams.code.scoring import humaneval_score, livecodebench_score
from mengya.evaluation.exams.scoring import cmath_score, cmrc_score

_LETTERS = list("ABCDEFGH")


def _lettered(options: list[str]) -> str:
    return "\n".join(f"{letter}. {text}" for letter, text in zip(_LETTERS, options, strict=False))


def _columns(*names: str) -> Callable[[dict[str, Any]], list[str]]:
    """The options of a row: the fields of these names, or the list in the one field."""

    def choices(doc: dict[str, Any]) -> list[str]:
        return list(doc[names[0]]) if len(names) == 1 else [doc[name] for name in names]

    return choices


def _first_letters(field: str) -> Callable[[dict[str, Any]], list[str]]:
    return lambda doc: _LETTERS[: len(doc[field])]


_CHOICES: dict[str, Any] = {
    "output_type": "multiple_choice",
    "test_split": "test",
    "fewshot_split": "test",
    "fewshot_config": {"sampler": "first_n"},
    "metric_list": [
        {"metric": metric, "aggregation": "mean", "higher_is_better": True}
        for metric in ("acc", "acc_norm")
    ],
}
_TEXT: dict[str, Any] = {
    "output_type": "generate_until",
    "test_split": "test",
    "fewshot_split": "test",
    "fewshot_config": {"sampler": "first_n"},
}


def _metrics(*names: str) -> list[dict[str, Any]]:
    return [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names]


def _livecodebench_prompt(doc: dict[str, Any]) -> str:
    starter = doc["starter_code"]
    how = "that completes the starter code" if starter else "that reads standard input and prints"
    parts = [f"### Question:\n{doc['question_content'].strip()}"]
    parts += [f"### Starter code:\n{starter}"] if starter else []
    return "\n\n".join([*parts, f"### Answer (a Python program {how}):\n```python\n"])


_C3 = "以下是阅读理解题，请根据短文回答问题。\n\n"
_SUBJECT = "以下是单项选择题，请选出其中的正确答案。\n\n"

OWN: Mapping[str, Mapping[str, Any]] = {
    "c3": {
        **_CHOICES,
        "description": _C3,
        "doc_to_text": lambda doc: (
            f"{doc['passage']}\n问题：{doc['question']}\n{_lettered(doc['choice'])}\n答案："
        ),
        "doc_to_choice": _first_letters("choice"),
        "doc_to_target": "gold",
    },
    "cmath": {
        **_TEXT,
        "doc_to_text": "问题：{{input}}\n答案：",
        "doc_to_target": "golden",
        "target_delimiter": "",
        "generation_kwargs": {"until": ["问题：", "\n\n"], "do_sample": False},
        "process_results": cmath_score,
        "metric_list": _metrics("exact_match"),
    },
    "cmrc": {
        **_TEXT,
        "description": "请从短文中摘出问题的答案。\n\n",
        "doc_to_text": "{{context}}\n问题：{{question}}\n答案：",
        "doc_to_target": lambda doc: doc["answers"][0],
        "target_delimiter": "",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 64, "do_sample": False},
        "process_results": cmrc_score,
        "metric_list": _metrics("exact_match", "f1"),
    },
    "gaokao_bench": {
        **_CHOICES,
        "description": "以下是高考单项选择题，请选出其中的正确答案。\n\n",
        "doc_to_text": "{{question.strip()}}\n答案：",
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "gold",
    },
    "humaneval": {
        **_TEXT,
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{test}}\ncheck({{entry_point}})",
        "generation_kwargs": {
            "until": ["\nclass", "\ndef", "\n#", "\nif", "\nprint"],
            "max_gen_toks": 1024,
            "do_sample": False,
        },
        "process_results": humaneval_score,
        "metric_list": _metrics("pass@1"),
    },
    "livecodebench": {
        **_TEXT,
        "doc_to_text": _livecodebench_prompt,
        "doc_to_target": "",
        "generation_kwargs": {"until": ["```"], "max_gen_toks": 1024, "do_sample": False},
        "process_results": livecodebench_score,
        "metric_list": _metrics("pass@1"),
    },
    "xiezhi": {
        **_CHOICES,
        "description": _SUBJECT,
        "doc_to_text": lambda doc: f"{doc['question'].strip()}\n{_lettered(doc['choice'])}\n答案：",
        "doc_to_choice": _first_letters("choice"),
        "doc_to_target": "gold",
    },
}  # fmt: skip


def _c3_rows(data: Any) -> Any:
    """clue/clue's rows as those of C3's own files."""
    return data.map(
        lambda row: {
            "passage": "\n".join(row["context"]),
            "gold": row["choice"].index(row["answer"]),
        }
    )


def _cmrc_rows(data: Any) -> Any:
    return data.map(
        lambda row: {"texts": list(dict.fromkeys(row["answers"]["text"]))},
        remove_columns=["answers"],
    ).rename_column("texts", "answers")


HUB_DATA: Mapping[str, Mapping[str, Any]] = {
    "c3": {"dataset_path": "clue/clue", "dataset_name": "c3", "test_split": "validation",
           "fewshot_split": "train", "process_docs": _c3_rows},
    "cmrc": {"dataset_path": "clue/clue", "dataset_name": "cmrc2018", "test_split": "validation",
             "fewshot_split": "train", "process_docs": _cmrc_rows},
    "humaneval": {"dataset_path": "openai/openai_humaneval"},
}  # fmt: skip
"""Where the Hub has the data of OWN."""

_BOTH = _metrics("acc", "acc_norm")
_ANSWER_ZH: dict[str, Any] = {"target_delimiter": "", "metric_list": _BOTH}

PROTOCOLS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("agieval", "letters"): {"doc_to_choice": _first_letters("choices")},
    ("gaokao", "letters"): {"doc_to_choice": _first_letters("choices")},
    ("belebele", "answers"): {
        "doc_to_text": "P: {{flores_passage}}\nQ: {{question.strip()}}\nA:",
        "doc_to_choice": _columns("mc_answer1", "mc_answer2", "mc_answer3", "mc_answer4"),
        "metric_list": _BOTH,
    },
    ("c3", "answers"): {
        **_ANSWER_ZH,
        "doc_to_text": "{{passage}}\n问题：{{question}}\n答案：",
        "doc_to_choice": _columns("choice"),
    },
    ("ceval", "answers"): {
        **_ANSWER_ZH,
        "doc_to_text": "问题：{{question.strip()}}\n答案：",
        "doc_to_choice": _columns(*"ABCD"),
    },
    ("cmmlu", "answers"): {
        **_ANSWER_ZH,
        "doc_to_text": "问题：{{Question.strip()}}\n答案：",
        "doc_to_choice": _columns(*"ABCD"),
    },
    ("gpqa", "answers"): {
        "doc_to_text": "Question: {{Question.strip()}}\nAnswer:",
        "doc_to_choice": _columns("choice1", "choice2", "choice3", "choice4"),
        "doc_to_target": lambda doc: "ABCD".index(doc["answer"][1]),
        "metric_list": _BOTH,
    },
    ("mmlu", "answers"): {
        "doc_to_text": "Question: {{question.strip()}}\nAnswer:",
        "doc_to_choice": _columns("choices"),
        "metric_list": _BOTH,
    },
    ("xiezhi", "answers"): {
        **_ANSWER_ZH,
        "doc_to_text": "问题：{{question.strip()}}\n答案：",
        "doc_to_choice": _columns("choice"),
    },
}
