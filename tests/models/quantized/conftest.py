"""A tokenizer folder for quantized folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from mengya.tokenizer.load import save_tokenizer
from mengya.tokenizer.train import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    text = "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。"
    save_tokenizer(train_tokenizer([text] * 4, 280, show_progress=False), folder)
    return folder
