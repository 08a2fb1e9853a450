"""A tokenizer, shards of every kind and a small model folder, made once for all tests of stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from tests.tokenizer.conftest import corpus, tokenizer, tokenizer_folder

__all__ = ["checkpoint", "corpus", "texts", "tokenizer", "tokenizer_folder"]

NAMES = ["小满", "阿木", "春生", "秋棠", "大河", "云朵"]
THINGS = ["苹果", "毛笔", "雨伞", "馒头", "风筝", "茶叶"]
MODEL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip


@dataclass(frozen=True)
class Nursery:
    """Paths of everything a stage needs.

    Attributes:
        tokenizer, base: the tokenizer folder and a model folder with random weights.
        shards: kind -> (train, validation) shard folders.
    """

    tokenizer: Path
    base: Path
    shards: dict[str, tuple[Path, Path]]

    def settings(self, kind: str, run_dir: Path, **more: Any) -> dict[str, Any]:
        """A small run on the shards of `kind`: 40 steps on the CPU."""
        train, validation = self.shards[kind]
        return {
            "run_dir": run_dir,
            "data": {"train": [str(train)], "validation": [str(validation)], "sequence_length": 128},
            "micro_batch_size": 2, "global_batch_size": 4, "max_steps": 40,
            "loop": {"log_every": 1, "eval_every": 20, "save_every": 20, "sample_every": 20},
            "device": "cpu", "precision": "fp32", "trackers": [],
            **({"tokenizer": self.tokenizer} if kind == "text" else {"init_from": self.base}),
            **more,
        }  # fmt: skip


def sentence(number: int) -> str:
    name, thing = NAMES[number % 6], THINGS[number // 6 % 6]
    return f"{name}在第{number}天买了{number % 9 + 1}个{thing}，{name}很高兴。"


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Nursery:
    root = tmp_path_factory.mktemp("nursery")
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
                learnt = None if mask is None else np.array(mask)
                writer.add(np.array(ids), np.array([len(ids)]), learnt)
            writer.close(
                tokenizer={"sha256": tokenizer_hash(root / "tokenizer")}, characters=100 * len(part)
            )
        shards[kind] = parts

    torch.manual_seed(0)
    model = CausalLM(ModelConfig(vocab_size=len(tokenizer), **MODEL))
    write_folder(model, tokenizer, root / "tokenizer", torch.float32, root / "base")
    assert encode_prompt(tokenizer, [{"role": "user", "content": "你好"}])
    return Nursery(root / "tokenizer", root / "base", shards)
