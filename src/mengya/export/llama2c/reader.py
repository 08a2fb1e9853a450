"""What run.c of llama2.c makes of model.bin and tokenizer.bin, in numpy, from the published layout alone.

The reader of the proof: nothing of our model's code runs here. Ids go in and come out as ours
(token_ids.json has the order).
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mengya.export.llama2c.layout import EPSILON, Header, rotary_angles
from mengya.export.llama2c.vocabulary import BOS, FIRST_BYTE, ORDER_FILE

_LEAST_SCORE = -1e10  # run.c merges above it


class Llama2cReader:
    """A `Reader` of a folder with model.bin, tokenizer.bin and token_ids.json.

    `token_ids` is run.c's `encode` without the two tokens that it always puts first: id 1, and a space.
    """

    program = f"llama2.c layout 0 (numpy {np.__version__})"

    def __init__(self, directory: Path) -> None:
        self._weights = WeightFile(directory / "model.bin")
        rows = abs(self._weights.header.vocab_size)
        self._encoder = Encoder(directory / "tokenizer.bin", rows)
        self._ours = json.loads((directory / ORDER_FILE).read_text(encoding="utf-8"))
        self._theirs = {ours: theirs for theirs, ours in enumerate(self._ours)}

    def token_ids(self, text: str, parse_special: bool = False) -> list[int] | None:
        """As `Reader.token_ids`; to run.c names of special tokens are text."""
        if parse_special:
            return None
        return [self._ours[token] for token in self._encoder.encode(text.encode())]

    def logits(self, ids: Sequence[int]) -> Tensor | None:
        """As `Reader.logits`."""
        theirs_SV = forward(self._weights, [self._theirs[token] for token in ids])
        logits = torch.empty(theirs_SV.shape)
        logits[:, self._ours] = torch.from_numpy(theirs_SV)
        return logits

    def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        enable_thinking: bool | None = None,
    ) -> str | None:
        """None: run.c knows no template but that of Llama 2's own chat models."""
        return None

    def stop_token_ids(self) -> set[int] | None:
        """run.c ends at id 1."""
        return {self._ours[BOS]}


class WeightFile:
    """model.bin, mapped into memory.

    Raises:
        ValueError: its size is not what its header says.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.header = Header(*struct.unpack("<7i", file.read(Header.BYTES)))
        shapes = self.header.tensors()
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        expected, size = Header.BYTES + 4 * sum(sizes), path.stat().st_size
        if size != expected:
            raise ValueError(f"{path} has {size} bytes, its header says {expected}")
        flat = np.memmap(path, dtype="<f4", mode="r", offset=Header.BYTES)
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        self._tensors = {
            name: part.reshape(shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[name]

    @property
    def output(self) -> np.ndarray:
        """The matrix of the output layer."""
        return self._tensors.get("output", self._tensors["tok_embeddings"])


class Encoder:
    """The `encode` of run.c over tokenizer.bin."""

    def __init__(self, path: Path, rows: int) -> None:
        data, place = path.read_bytes(), 4
        self.pieces: list[bytes] = []
        self.scores: list[float] = []
        for _ in range(rows):
            score, length = struct.unpack_from("<fi", data, place)
            self.pieces.append(data[place + 8 : place + 8 + length])
            self.scores.append(score)
            place += 8 + length
        if place != len(data):
            raise ValueError(f"{path} has {len(data)} bytes, its lengths say {place}")
        self._id_of = {piece: token for token, piece in enumerate(self.pieces)}

    def encode(self, text: bytes) -> list[int]:
        """Ids of the file: characters, or their bytes, then the best pairs joined one at a time."""
        tokens = [token for part in _characters(text) for token in self._of_character(part)]
        joined = [self._joined(*pair) for pair in itertools.pairwise(tokens)]
        while joined:
            # The first of the best, as run.c compares with `>`.
            at = max(range(len(joined)), key=lambda i: (joined[i][0], -i))
            if joined[at][0] <= _LEAST_SCORE:
                break
            tokens[at : at + 2] = [joined[at][1]]
            del joined[at]
            for i in (at - 1, at):
                if 0 <= i < len(joined):
                    joined[i] = self._joined(tokens[i], tokens[i + 1])
        return tokens

    def _of_character(self, part: bytes) -> list[int]:
        token = self._id_of.get(part)
        return [byte + FIRST_BYTE for byte in part] if token is None else [token]

    def _joined(self, first: int, second: int) -> tuple[float, int]:
        """(score, id) of two neighbours as one token; the least score where there is none."""
        token = self._id_of.get(self.pieces[first] + self.pieces[second])
        return (_LEAST_SCORE, -1) if token is None else (self.scores[token], token)


def _characters(text: bytes) -> list[bytes]:
    """What run.c takes for characters of UTF-8: a byte and up to three that continue it."""
    parts: list[bytes] = []
    start = 0
    for end in range(1, len(text) + 1):
        continues = end < len(text) and text[end] & 0xC0 == 0x80
        if not continues or end - start == 4:
            parts.append(text[start:end])
            start = end
    return parts


def forward(weights: WeightFile, tokens: Sequence[int]) -> np.ndarray:
    """Logits after every token, [S, V] fp32, as run.c computes them one by one."""
    header = weights.header
    angles = rotary_angles(len(tokens), header.head_dim)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    x = weights["tok_embeddings"][list(tokens)]
    for layer in range(header.n_layers):
        normed = _norm(x, weights["attention_norm"][layer])
        x = x + _attention(weights, layer, normed, cos, sin) @ weights["wo"][layer].T
        normed = _norm(x, weights["ffn_norm"][layer])
        gate = normed @ weights["w1"][layer].T
        x = (
            x
            + (gate / (1 + np.exp(-gate)) * (normed @ weights["w3"][layer].T))
            @ weights["w2"][layer].T
        )
    return _norm(x, weights["norm"]) @ weights.output.T


def _norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    mean_square = np.mean(x * x, axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + np.float32(EPSILON)) * weight


def _attention(
    weights: WeightFile, layer: int, x_SD: np.ndarray, cos: np.ndarray, sin: np.ndarray
) -> np.ndarray:
    header, S = weights.header, len(x_SD)
    heads = {}
    for name in ("wq", "wk", "wv"):
        heads[name] = (x_SD @ weights[name][layer].T).reshape(S, -1, header.head_dim)
    q, k = (_rotated(heads[name], cos, sin) for name in ("wq", "wk"))
    groups = header.n_heads // header.n_kv_heads
    k, v = (np.repeat(t, groups, axis=1) for t in (k, heads["wv"]))
    scores_HST = np.einsum("shd,thd->hst", q, k) / np.sqrt(np.float32(header.head_dim))
    scores_HST = np.where(np.tri(S, dtype=bool), scores_HST, -np.inf)
    shares = np.exp(scores_HST - scores_HST.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return np.einsum("hst,thd->shd", shares, v).reshape(S, -1)


def _rotated(x_SHD: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Neighbours rotated by the angle of their position."""
    first, second = x_SHD[..., 0::2], x_SHD[..., 1::2]
    rotated = np.stack([first * cos - second * sin, first * sin + second * cos], axis=-1)
    return rotated.reshape(x_SHD.shape)
