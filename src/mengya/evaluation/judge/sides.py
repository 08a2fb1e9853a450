"""The answers of a checkpoint, made once: a run that resumes must send the judge the same answers again.

They lie in OUT as a file of answers, whose name holds a hash of all that decides them; it can be a side of
another comparison as well.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mengya.data.ingest.reading.records import BadLines
from mengya.evaluation.answers.answer import answers
from mengya.evaluation.judge.config import JudgeConfig
from mengya.evaluation.judge.questions import Question, read_answers
from mengya.evaluation.progress import progress_bar
from mengya.evaluation.subject import Subject
from mengya.generation.chat_detection import is_chat_model
from mengya.measured.evaluation import subject_sha256
from mengya.models.hf.open_checkpoint import find_checkpoint, open_checkpoint, pick_dtype
from mengya.runtime.device import init_device
from mengya.runtime.files import write_text
from mengya.runtime.jsonl import json_line


def checkpoint_answers(
    path: Path, questions: Sequence[Question], config: JudgeConfig
) -> dict[str, str]:
    """The key of a question -> what the checkpoint answers; taken from OUT where it is there.

    Raises:
        UserError: no checkpoint, or a question does not fit into its context.
    """
    file = config.out / f"answers_{_identity(path, questions, config)}.jsonl"
    if not file.is_file():
        write_text(file, "".join(map(json_line, _answered(path, questions, config))))
    return read_answers(file, BadLines(0))


def _identity(path: Path, questions: Sequence[Question], config: JudgeConfig) -> str:
    parts = [subject_sha256(find_checkpoint(path)), [question.key for question in questions]]
    parts += [config.answers.model_dump(mode="json"), config.dtype]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _answered(
    path: Path, questions: Sequence[Question], config: JudgeConfig
) -> list[dict[str, object]]:
    device = init_device(config.device, config.threads)
    model, tokenizer = open_checkpoint(path, device, pick_dtype(config.dtype, device))
    subject = Subject(model, tokenizer, find_checkpoint(path), is_chat_model(model, tokenizer))
    with progress_bar(sys.stderr.isatty(), f"answers of {path}") as on_progress:
        made = answers(
            replace(subject, on_progress=on_progress),
            [question.prompt for question in questions],
            temperature=config.answers.temperature,
            max_new_tokens=config.answers.max_new_tokens,
            seed=config.answers.seed,
        )
    return [
        {
            "id": question.id,
            "question" if isinstance(question.prompt, str) else "messages": question.prompt,
            "answer": answer.text,
            "tokens": answer.tokens,
            "finished": answer.finished,
        }
        for question, answer in zip(questions, made, strict=True)
    ]
