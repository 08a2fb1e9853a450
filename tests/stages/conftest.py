"""A tokenizer, shards of every kind and a small model folder, made once for all tests of stages."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mengya.data.shards import ShardWriter
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import write_folder
from mengya.tokenizer.chat_template import encode_conversation, encode_prompt
from mengya.tokenizer.load import (
    document_token_id,
    encode_texts,
    load_tokenizer,
    save_tokenizer,
    tokenizer_hash,
)
from mengya.tokenizer.train import train_tokenizer
from tests.evaluation.conftest import checkpoint, texts
from tests.helpers.stage_fixtures import MODEL, NAMES, StageFixtures, sentence
from tests.tokenizer.conftest import corpus, tokenizer, tokenizer_folder

__all__ = ["checkpoint", "corpus", "texts", "tokenizer", "tokenizer_folder"]


@pytest.fixture(scope="session")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> StageFixtures:
    root = tmp_path_factory.mktemp("fixtures")
    texts = ["".join(sentence(i + j) for j in range(1 + i % 4)) for i in range(120)]
    save_tokenizer(train_tokenizer(texts, 400, show_progress=False), root / "tokenizer")
    tokenizer = load_tokenizer(root / "tokenizer")
    edge = [document_token_id(tokenizer)]

    def conversation(i: int, answer: str) -> tuple[list[int], list[int]]:
        question = f"{NAMES[i % 6]}第{i}天买了什么？"
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return encode_conversation(tokenizer, messages)

    text = [(edge + ids + edge, None) for ids in encode_texts(tokenizer, texts)]
    talk = [conversation(i, sentence(i)) for i in range(120)]
    pairs = [
        conversation(i // 2, sentence(i // 2) if i % 2 == 0 else "不知道，别问我。")
        for i in range(160)
    ]
    shards = {}
    for kind, documents in (("text", text), ("conversation", talk), ("preference", pairs)):
        cut = len(documents) * 3 // 4
        parts = root / f"{kind}-train", root / f"{kind}-validation"
        for folder, part in zip(parts, (documents[:cut], documents[cut:]), strict=True):
            writer = ShardWriter(folder, kind, len(tokenizer))
            for ids, mask in part:
                learned = None if mask is None else np.array(mask)
                writer.add(np.array(ids), np.array([len(ids)]), learned)
            writer.close(
                tokenizer={"sha256": tokenizer_hash(root / "tokenizer")}, characters=100 * len(part)
            )
        shards[kind] = parts

    torch.manual_seed(0)
    model = CausalLM(ModelConfig(vocab_size=len(tokenizer), **MODEL))
    write_folder(model, tokenizer, root / "tokenizer", torch.float32, root / "base")
    assert encode_prompt(tokenizer, [{"role": "user", "content": "你好"}])
    return StageFixtures(root / "tokenizer", root / "base", shards)
