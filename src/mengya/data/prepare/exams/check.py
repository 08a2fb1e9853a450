"""What a `prepare` run looks for of exams: in every process the items, in the parent what they are called.

`ExamItems` is sent to the processes and says which items a sample holds, in all of its turns; `ExamCheck` has
the exams. Where an item stands is noted in hits.py.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mengya.data.exams.config import ContaminationConfig
from mengya.data.exams.items import NamedExam, exam_files, exam_name, read_exams
from mengya.data.ingest.samples import sample_messages
from mengya.data.ingest.schema import Document, Sample
from mengya.text.contamination.index import ContaminationIndex, build_index


@dataclass(frozen=True)
class ExamItems:
    """All items, numbered through all exams.

    Attributes:
        drop: whether a sample that holds one is left out.
        compose: whether texts may not be in NFC.
    """

    index: ContaminationIndex
    drop: bool
    compose: bool

    def held_by(self, samples: Sequence[Sample]) -> list[list[int]]:
        """For each sample the items that it holds."""
        texts = ["\n".join(_texts(sample)) for sample in samples]
        if self.compose:
            texts = [unicodedata.normalize("NFC", text) for text in texts]
        held: list[list[int]] = [[] for _ in samples]
        for text, item in self.index.find(texts):
            held[text].append(item)
        return held


@dataclass(frozen=True)
class ExamCheck:
    """The exams of a run, and the items to look for."""

    exams: list[NamedExam]
    items: ExamItems
    config: ContaminationConfig

    @staticmethod
    def of(config: ContaminationConfig, compose: bool) -> ExamCheck:
        """Read all exams.

        Raises:
            UserError: as `read_exams`.
        """
        exams = read_exams(config.exams)
        every = [item for exam in exams for item in exam.items]
        index = build_index(every, config.ngram, config.share)
        return ExamCheck(exams, ExamItems(index, config.action == "drop", compose), config)


def check_request(config: ContaminationConfig) -> dict[str, Any]:
    """All that decides what is found, as JSON: the settings, and the SHA-256 of every file.

    Raises:
        UserError: no such file.
    """
    exams = []
    for source in config.exams:
        digests = []
        for path in exam_files(source):
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        exams.append({"name": exam_name(source), "field": source.field, "files": digests})
    return {**config.model_dump(mode="json", exclude={"exams"}), "exams": exams}


def _texts(sample: Sample) -> Iterator[str]:
    """Everything that a sample says: a document, or all turns with their reasoning and tool calls."""
    if isinstance(sample, Document):
        yield sample.text
        return
    for message in sample_messages(sample):
        yield message["content"]
        yield message.get("reasoning_content", "")
        if calls := message.get("tool_calls"):
            yield json.dumps(calls, ensure_ascii=False)
