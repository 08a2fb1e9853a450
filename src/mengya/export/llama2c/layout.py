"""The published layout of llama2.c's model.bin, version 0: the names and shapes of what follows the header.

Shared by the writer and the reader; knows neither models nor tokenizers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

EPSILON = 1e-5  # of every RMSNorm; the file has no place for another
THETA = 10_000.0  # of RoPE, likewise


@dataclass(frozen=True)
class Header:
    """Seven 32-bit integers; `vocab_size` is negative where the output layer has a matrix of its own."""

    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    seq_len: int
    BYTES: ClassVar[int] = 28

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of the fp32 tensors in the order of the file; those of a kind lie together."""
        L, D, F, half = self.n_layers, self.dim, self.hidden_dim, self.head_dim // 2
        kv = self.n_kv_heads * self.head_dim
        shapes = {
            "tok_embeddings": (abs(self.vocab_size), D), "attention_norm": (L, D),
            "wq": (L, D, D), "wk": (L, kv, D), "wv": (L, kv, D), "wo": (L, D, D), "ffn_norm": (L, D),
            "w1": (L, F, D), "w2": (L, D, F), "w3": (L, F, D), "norm": (D,),
            "freqs_cos": (self.seq_len, half), "freqs_sin": (self.seq_len, half),
        }  # fmt: skip
        return shapes if self.vocab_size > 0 else {**shapes, "output": (-self.vocab_size, D)}


def rotary_angles(seq_len: int, head_dim: int) -> np.ndarray:
    """Position times frequency of each pair, [seq_len, head_dim / 2] fp32, as run.c computes them."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1) / np.power(np.float32(THETA), exponents)
    return np.arange(seq_len, dtype=np.float32)[:, None] * frequencies
