"""A tokenizer trained on a page of Chinese."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from mengya.tokenizer.load import load_tokenizer, save_tokenizer
from mengya.tokenizer.train import train_tokenizer

SENTENCES = [
    "春天来了，院子里的桃花开了，小猫在树下打盹。",
    "小明每天早上七点起床，八点去学校，下午四点回家。",
    "机器学习是让计算机从数据中学习规律的方法。",
    "北京今天的天气晴，最高气温25度，适合出门散步。",
    "The quick brown fox jumps over the lazy dog, it's 12:30 now.\n\n",
    "def add(a, b):\n    return a + b\n",
]


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    return [f"{SENTENCES[i % 6]}第{i}句。{SENTENCES[(i * 5 + 1) % 6]}" for i in range(300)]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory, corpus: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(corpus, 500, show_progress=False), folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(tokenizer_folder)
