"""A tiny checkpoint folder, saved by our code, with a tokenizer trained on a page of Chinese."""

from pathlib import Path

import pytest
import torch

from mengya.evaluation.subject import Subject
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import save_hf_folder
from mengya.models.hf.open_checkpoint import open_checkpoint
from mengya.tokenizer.load import save_tokenizer
from mengya.tokenizer.train import train_tokenizer

TEXTS = [
    "春天来了，院子里的桃花开了，小猫在树下打盹。" * 3,
    "小明每天早上七点起床，八点去学校。",
    "龘🙂 rare characters, and some English words.\n",
    "字",
]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return TEXTS


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = train_tokenizer([text * 2 for text in TEXTS], 300, show_progress=False)
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        initializer_range=0.3,  # far from uniform, so that a wrong token or position shows
    )
    save_hf_folder(
        CausalLM(config), config, folder, bos_token_id=0, eos_token_id=[0, 2], pad_token_id=3
    )
    save_tokenizer(tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def subject(checkpoint: Path) -> Subject:
    model, tokenizer = open_checkpoint(checkpoint, torch.device("cpu"), torch.float32)
    return Subject(model, tokenizer, checkpoint, chat=False)
