"""A small real tokenizer, trained once, and a way to write JSON lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from mengya.tokenizer.load import save_tokenizer
from mengya.tokenizer.train import train_tokenizer

TEXT = (
    "春天来了，小镇上的花都开了。老王在河边钓鱼，女儿小梅坐在旁边看书。他们说起去年的雨，"
    "The quick brown fox jumps over the lazy dog.\n一共有三十二户人家，每天早晨七点钟开门。"
)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer([TEXT] * 20, vocab_size=400), folder)
    return folder
