"""All that is measured by length of context, passkeys apart: documents, questions about facts, and tasks."""

from __future__ import annotations

from mengya.data.ingest.reading.records import BadLines
from mengya.data.ingest.texts import read_texts
from mengya.evaluation.long_context.buckets import Buckets
from mengya.evaluation.long_context.config import LongContextConfig
from mengya.evaluation.long_context.documents import document_figures
from mengya.evaluation.long_context.questions import question_figures
from mengya.evaluation.long_context.tasks.measure import task_figures
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickResult


def long_context(subject: Subject, config: LongContextConfig) -> YardstickResult:
    """Every part that `config` asks for.

    Raises:
        UserError: texts or tasks cannot be used, or nothing fits the model's context.
    """
    buckets, results = Buckets(config.edges), list[YardstickResult]()
    if config.texts:
        texts = read_texts(config.texts, BadLines(config.max_bad_lines))
        results.append(document_figures(subject, texts, buckets, config.documents, config.seed))
    if config.questions:
        lengths = config.shortest, config.longest
        results.append(question_figures(subject, buckets, config.questions, lengths, config.seed))
    if config.tasks:
        results.append(task_figures(subject, buckets, config))
    return YardstickResult(
        [figure for result in results for figure in result.measurements],
        [item for result in results for item in result.items],
    )
