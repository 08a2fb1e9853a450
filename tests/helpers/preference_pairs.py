"""Random pairs of completions, packed by hand as the data package does, and a model for them."""

from __future__ import annotations

import torch

from mengya.batch import IGNORE_INDEX, Batch
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig

VOCAB = 61
Pair = tuple[list[int], list[int], list[int]]  # prompt, chosen, rejected ids


def tiny_model(seed: int) -> CausalLM:
    torch.manual_seed(seed)
    config = ModelConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3,
    )  # fmt: skip
    return CausalLM(config).eval()


def random_pairs(seed: int, count: int) -> list[Pair]:
    generator = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> list[int]:
        n = int(torch.randint(low, high, (), generator=generator))
        return torch.randint(1, VOCAB, (n,), generator=generator).tolist()

    return [(ids(2, 6), ids(1, 8), ids(1, 8)) for _ in range(count)]


def pack_pairs(rows: list[list[Pair]], size: int) -> Batch:
    """One row per list of pairs, packed by hand as the data package does."""
    tensors: dict[str, list[list[int]]] = {
        k: [] for k in ("ids", "labels", "positions", "documents")
    }
    bounds, most = [0], 2 * max(len(pairs) for pairs in rows) + 1
    for number, pairs in enumerate(rows):
        ids, labels, positions, documents = [], [], [], []
        for pair, (prompt, *sides) in enumerate(pairs):
            for side, completion in enumerate(sides):
                tokens = prompt + completion
                learned = [False] * len(prompt) + [True] * len(completion)
                ids += tokens[:-1]
                labels += [
                    t if on else IGNORE_INDEX for t, on in zip(tokens[1:], learned[1:], strict=True)
                ]
                positions += range(len(tokens) - 1)
                documents += [2 * pair + side] * (len(tokens) - 1)
                bounds.append(number * size + len(ids))
        pad = size - len(ids)
        tensors["ids"].append(ids + [0] * pad)
        tensors["labels"].append(labels + [IGNORE_INDEX] * pad)
        tensors["positions"].append(positions + [0] * pad)
        tensors["documents"].append(documents + [-1] * pad)
        if pad:
            bounds.append((number + 1) * size)
    cu_seqlens = bounds + [len(rows) * size] * (len(rows) * most + 1 - len(bounds))
    return Batch(
        input_ids=torch.tensor(tensors["ids"]),
        labels=torch.tensor(tensors["labels"]),
        position_ids=torch.tensor(tensors["positions"]),
        document_ids=torch.tensor(tensors["documents"]),
        cu_seqlens=torch.tensor(cu_seqlens, dtype=torch.int32),
    )
