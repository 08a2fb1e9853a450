"""Near-copies: none of train in validation, dropped where asked, the same bytes however it is run."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from mengya.data.shards import TokenShards
from mengya.stages.prepare import PrepareConfig, run
from mengya.tokenizer.load import load_tokenizer
from tests.helpers.json_lines import write_lines

LETTERS = "春天来了小镇上的花都开老王在河边钓鱼女儿坐旁看书山里有座庙雨后蘑菇长满坡路人问今年收成怎样"


def text(rng: random.Random, length: int = 200) -> str:
    return "".join(rng.choices(LETTERS, k=length))


def changed(rng: random.Random, text: str, characters: int = 1) -> str:
    """With so many characters replaced, by others than any text has."""
    letters = list(text)
    for place in rng.sample(range(len(letters)), characters):
        letters[place] = chr(rng.randint(0x5000, 0x5FFF))
    return "".join(letters)


def ngrams(text: str) -> set[str]:
    return {text[at : at + 5] for at in range(len(text) - 4)}


def jaccard(a: str, b: str) -> float:
    return len(ngrams(a) & ngrams(b)) / len(ngrams(a) | ngrams(b))


def prepare(out: Path, tokenizer: Path, sources: Any, **settings: Any) -> Path:
    config = {"out": out, "tokenizer": tokenizer, "sources": sources, "workers": 1, **settings}
    run(PrepareConfig.model_validate(config))
    return out


def texts(tokenizer_folder: Path, shards: Path) -> list[str]:
    tokenizer, opened = load_tokenizer(tokenizer_folder), TokenShards(shards)
    decoded = (tokenizer.decode(opened.tokens(i).tolist()[1:-1]) for i in range(len(opened)))
    return [str(one) for one in decoded]


def leaks(tokenizer_folder: Path, out: Path, threshold: float = 0.85) -> int:
    """Texts of validation that nearly equal one of train, by exact Jaccard similarity."""
    train, held = (texts(tokenizer_folder, out / split) for split in ("train", "validation"))
    return sum(any(jaccard(a, b) >= threshold for b in train) for a in held)


def test_validation_holds_no_near_copy_of_a_training_text(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    rng = random.Random(0)
    originals = [text(rng) for _ in range(60)]
    copies = [changed(rng, one) for one in originals for _ in range(2)]
    assert all(jaccard(one, copies[2 * i]) > 0.9 for i, one in enumerate(originals))
    write_lines(tmp_path / "a.jsonl", [{"text": one} for one in originals + copies])
    source = str(tmp_path / "a.jsonl")
    out = prepare(tmp_path / "out", tokenizer_folder, source, validation_fraction=0.3)
    assert leaks(tokenizer_folder, out) == 0
    manifests = [TokenShards(out / split).manifest for split in ("train", "validation")]
    assert sum(one["samples"] for one in manifests) == 180  # nothing is lost
