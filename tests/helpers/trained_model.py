"""A tiny model that learned a few hundred sentences, its tokenizer and texts; made once."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import load_causal_lm, write_folder
from mengya.tokenizer.load import document_token_id, encode_texts, load_tokenizer, save_tokenizer
from mengya.tokenizer.train import train_tokenizer
from tests.helpers.stage_fixtures import NAMES, sentence


@dataclass(frozen=True)
class Trained:
    """
    Attributes:
        folder: of the model, fp32.
        texts, conversations: JSONL files like what it was trained on.
        held_out: rows of ids of other sentences, [R, S].
    """

    folder: Path
    texts: Path
    conversations: Path
    held_out: torch.Tensor

    def divergence(self, model: CausalLM) -> float:
        """Nats per token that `model` is away from the full one on `held_out` (Kullback-Leibler)."""
        logs = []
        for each in (load_causal_lm(self.folder).eval(), model.eval()):
            with torch.no_grad():
                logs.append(each(self.held_out).head_output.log_softmax(-1))
        return (logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean().item()


@cache
def trained_model() -> Trained:
    """Once a process; the folder lives as long as the machine's temporary files do."""
    root = Path(tempfile.mkdtemp(prefix="mengya-trained-"))
    texts = ["".join(sentence(i * 7 + j) for j in range(4)) for i in range(200)]
    save_tokenizer(train_tokenizer(texts, 400, show_progress=False), root / "tokenizer")
    tokenizer = load_tokenizer(root / "tokenizer")
    edge = [document_token_id(tokenizer)]
    ids = [edge + one + edge for one in encode_texts(tokenizer, texts)]
    stream = torch.tensor([token for one in ids for token in one])
    rows = stream[: len(stream) // 64 * 64].view(-1, 64)
    train, held_out = rows[: len(rows) * 4 // 5], rows[len(rows) * 4 // 5 :]
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    model = CausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(80):
        batch = train[torch.arange(step * 16, step * 16 + 16) % len(train)]
        logits = model(batch[:, :-1]).head_output
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    write_folder(model, tokenizer, root / "tokenizer", torch.float32, root / "model")
    questions = [
        [
            {"role": "user", "content": f"{NAMES[i % 6]}买了什么？"},
            {"role": "assistant", "content": text},
        ]
        for i, text in enumerate(texts)
    ]
    (root / "texts.jsonl").write_text(
        "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), "utf-8"
    )
    (root / "conversations.jsonl").write_text(
        "".join(json.dumps({"messages": one}, ensure_ascii=False) + "\n" for one in questions),
        "utf-8",
    )
    return Trained(root / "model", root / "texts.jsonl", root / "conversations.jsonl", held_out)
