"""Where a figure comes from: the command, the seed, the machine, the programs, and what is known of the data.

Nothing here depends on the time, so that the same command writes the same bytes twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from mengya.data.training_record import TrainedOn


@dataclass(frozen=True)
class Provenance:
    """
    Attributes:
        command: what to type to measure it again.
        device: cpu, cuda or mps; `hardware` is its name.
        versions: of mengya and of the packages that compute.
        commit: of mengya, with -dirty where files of the clone were changed; None outside a clone.
        contamination: what is known of exam items in the training data, in words.
    """

    command: str
    seed: int
    device: str
    hardware: str
    dtype: str
    versions: dict[str, str]
    tokenizer_sha256: str
    commit: str | None
    contamination: str


def contamination_line(record: list[TrainedOn] | None) -> str:
    """What the data of a model are known to hold of exams."""
    if not record:
        return "no record of the training data"
    unchecked = [entry.shards or "of the start" for entry in record if entry.contamination is None]
    exams = [
        exam for entry in record if entry.contamination for exam in entry.contamination["exams"]
    ]
    found = len({key for exam in exams for key in exam["keys"]})
    names = sorted({str(exam.get("name", "?")) for exam in exams})
    if not exams:
        return f"training data not checked for exam items: {', '.join(unchecked)}"
    line = f"{found:,} items of {', '.join(names)} found in the training data"
    return f"{line}; not checked: {', '.join(unchecked)}" if unchecked else line
