"""`generate(out, config)`: the complete sample bundle on disk, a pure function of the config.

Writes pretrain.jsonl, pretrain_validation.jsonl, conversations.jsonl, conversations_validation.jsonl,
preferences.jsonl, preferences_heldout.jsonl and closed_book/{dev,test}/*.csv. The bundle is built in
a folder next to `out` and renamed into place, so `out` is complete or not there at all.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field

from mengya.config import Config
from mengya.runtime.output_folder import FolderKind, new_folder
from mengya.world.conversations import Talker
from mengya.world.exam import closed_book
from mengya.world.facts import World, build_world
from mengya.world.preferences import Chooser
from mengya.world.text import SUBJECTS, Author


class WorldConfig(Config):
    """How large the small world is and how much is written about it."""

    seed: int = 0
    """The world, its facts and every text follow from this number."""
    people: int = Field(default=24, ge=24, le=60)
    """Inhabitants of the town."""
    places: int = Field(default=8, ge=8, le=20)
    """Shops and public places."""
    events: int = Field(default=6, ge=6, le=12)
    """Festivals of the year."""
    pretrain_characters: int = Field(default=2_000_000, ge=10_000)
    """Characters of generated pretraining text."""
    exercise_share: float = Field(default=0.7, ge=0.0, le=1.0)
    """Share of the pretraining documents that are multiple-choice exercise sheets."""
    validation_documents: int = Field(default=200, ge=1)
    """Held-out documents of the same distribution."""
    conversations: int = Field(default=14_000, ge=10)
    """Generated conversations to train on."""
    validation_conversations: int = Field(default=100, ge=1)
    """Held-out conversations."""
    preferences: int = Field(default=1_500, ge=10)
    """Preference pairs to train on."""
    heldout_preferences: int = Field(default=200, ge=10)
    """Held-out preference pairs, with wordings that the training pairs do not use."""
    questions_per_subject: int = Field(default=60, ge=4)
    """Closed-book questions per subject, where the subject has so many."""
    handwritten: bool = True
    """Mix in the hand-written documents and dialogues that ship with the package."""
    handwritten_repeats: int = Field(default=2, ge=1)
    """How often each hand-written text occurs."""


def world_of(config: WorldConfig) -> World:
    """The world that the bundle of this config is about."""
    return build_world(config.seed, config.people, config.places, config.events)


_TEXTS = ("pretrain", "pretrain_validation", "conversations", "conversations_validation")
_FILES = tuple(f"{name}.jsonl" for name in (*_TEXTS, "preferences", "preferences_heldout"))
FOLDER = FolderKind(
    "world",
    (
        *_FILES,
        *(f"closed_book/{split}/{name}.csv" for split in ("dev", "test") for name in SUBJECTS),
    ),
    unmarked=lambda folder: all((folder / name).is_file() for name in _FILES),
)


def generate(out: Path, config: WorldConfig, overwrite: bool = False) -> None:
    """Write the bundle to the folder `out`; with `overwrite` in place of an earlier bundle.

    Raises:
        UserError: `out` exists, and holds other files or is not to be replaced.
    """
    with new_folder(out, FOLDER, overwrite=overwrite) as building:
        _write(building, config)


def _write(building: Path, config: WorldConfig) -> None:
    for name, records in _files(config).items():
        with (building / name).open("w", encoding="utf-8", newline="\n") as file:
            for record in records:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    tables = closed_book(world_of(config), _rng(config, "exam"), config.questions_per_subject)
    for name, text in tables.items():
        path = building / "closed_book" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def handwritten(name: str) -> list[dict[str, Any]]:
    """The hand-written records of documents.jsonl or dialogues.jsonl."""
    text = (resources.files("mengya.world") / "handwritten" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def _rng(config: WorldConfig, name: str) -> random.Random:
    return random.Random(f"{name} {config.seed}")


def _files(config: WorldConfig) -> dict[str, list[dict[str, Any]]]:
    world = world_of(config)
    author = Author(world, _rng(config, "text"), config.exercise_share)
    talker = Talker(world, _rng(config, "talk"))
    chooser = Chooser(world, _rng(config, "choice"))
    documents = list(_until(config.pretrain_characters, author.document))
    talks = [{"messages": talker.conversation()} for _ in range(config.conversations)]
    pairs = [chooser.pair() for _ in range(config.preferences)]
    texts, dialogues = [], []
    if config.handwritten:
        texts = handwritten("documents.jsonl")
        dialogues = handwritten("dialogues.jsonl")
    held_texts, texts = texts[::20], [text for i, text in enumerate(texts) if i % 20]
    held_talks, dialogues = dialogues[::20], [talk for i, talk in enumerate(dialogues) if i % 20]
    seen = set(documents)
    validation = _fresh(config.validation_documents, author.document, seen)
    return {
        "pretrain.jsonl": _mix(
            _rng(config, "mix text"),
            [{"text": text} for text in documents],
            texts * config.handwritten_repeats,
        ),
        "pretrain_validation.jsonl": [{"text": text} for text in validation] + held_texts,
        "conversations.jsonl": _mix(
            _rng(config, "mix talk"), talks, dialogues * config.handwritten_repeats
        ),
        "conversations_validation.jsonl": [
            {"messages": talker.conversation()} for _ in range(config.validation_conversations)
        ]
        + held_talks,
        "preferences.jsonl": pairs,
        "preferences_heldout.jsonl": [
            chooser.pair(heldout=True) for _ in range(config.heldout_preferences)
        ],
    }


def _until(characters: int, write: Callable[[], str]) -> Iterator[str]:
    total = 0
    while total < characters:
        text = write()
        total += len(text)
        yield text


def _fresh(count: int, write: Callable[[], str], seen: set[str]) -> list[str]:
    """`count` texts that are not among those seen."""
    texts: list[str] = []
    while len(texts) < count:
        text = write()
        if text not in seen:
            texts.append(text)
    return texts


def _mix(rng: random.Random, *parts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    records = [record for part in parts for record in part]
    rng.shuffle(records)
    return records
