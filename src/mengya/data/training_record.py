"""training_data.json: the shards that a model was trained on, in all stages, and what of exams they hold.

    {"format": 1, "data": [{"run": "pretrain", "shards": "text", "contamination": {...} or null}, ...]}

The stages before come first; an entry without shards stands for a start whose data nobody noted. Of exams
it has what the manifest of the shards has (data/prepare/exams/hits.py): hashes of items, never their text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.runtime.files import write_text
from mengya.runtime.training_data import TRAINING_DATA
from mengya.version import check_format

FORMAT = 1  # of the file
_PARTS = ("train", "validation")


@dataclass(frozen=True)
class TrainedOn:
    """One shard folder that a run learned from.

    Attributes:
        run: pretrain, sft or dpo; None is not known.
        shards: the last part of its path, or two, as in web/train; None: nothing is known of the data.
        contamination: of its manifest; None: nobody looked for exam items.
    """

    run: str | None
    shards: str | None
    contamination: dict[str, Any] | None


UNKNOWN = TrainedOn(None, None, None)


def training_record(run: str, shards: Iterable[TokenShards], start: Path | None) -> list[TrainedOn]:
    """What a run learns from, after what its start did: None for random weights."""
    earlier = [] if start is None else read_training_record(start) or [UNKNOWN]
    own = [
        TrainedOn(run, _name(each.directory), each.manifest.get("contamination")) for each in shards
    ]
    return [*earlier, *(each for each in own if each not in earlier)]


def _name(directory: Path) -> str:
    """`prepare` calls the parts of all its folders train and validation, which would not tell them apart."""
    directory = directory.absolute()
    return "/".join(directory.parts[-2 if directory.name in _PARTS else -1 :])


def read_training_record(folder: Path) -> list[TrainedOn] | None:
    """The record of a model folder; None when it has none.

    Raises:
        UserError: it is damaged, or of a later version.
    """
    path = folder / TRAINING_DATA
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        check_format(path, values["format"], FORMAT, values.get("mengya_version"))
        record = [TrainedOn(**entry) for entry in values["data"]]
        for entry in record:
            _check(entry)
        return record
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}): copy it again, or remove it, and nothing is known "
            "of the training data"
        ) from error


def _check(entry: TrainedOn) -> None:
    """Raises KeyError or TypeError where a value is missing or of the wrong type."""
    lists = [
        exam[name]
        for exam in (entry.contamination or {"exams": []})["exams"]
        for name in ("keys", "unchecked_keys")
    ]
    if not all(isinstance(keys, list) for keys in lists):
        raise TypeError
    if not all(isinstance(value, str | None) for value in (entry.run, entry.shards)):
        raise TypeError


def write_training_record(record: list[TrainedOn], folder: Path) -> None:
    """Write the record next to the weights of a model."""
    values = {"format": FORMAT, "data": [asdict(entry) for entry in record]}
    write_text(folder / TRAINING_DATA, json.dumps(values, ensure_ascii=False) + "\n")
