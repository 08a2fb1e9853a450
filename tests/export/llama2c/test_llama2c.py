"""model.bin and tokenizer.bin: the bytes of the published layout, and what is computed from them."""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.export.llama2c.format import LLAMA2C, Llama2cOptions
from mengya.export.llama2c.reader import Encoder, Llama2cReader
from mengya.export.llama2c.vocabulary import llama2c_vocabulary
from mengya.export.source import Source
from mengya.tokenizer.load import document_token_id, encode_texts
from tests.helpers.checkpoint_source import checkpoint_source
from tests.tokenizer.conftest import corpus, tokenizer, tokenizer_folder

__all__ = ["corpus", "tokenizer", "tokenizer_folder"]
OPTIONS = Llama2cOptions()
LLAMA: dict[str, Any] = {"qk_norm": False, "rms_norm_eps": 1e-6}


def written(source: Source, folder: Path) -> Path:
    folder.mkdir()
    LLAMA2C.check(source, OPTIONS)
    LLAMA2C.write(source, folder, OPTIONS)
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {},  # grouped heads, tied, another epsilon than run.c's
        {"tie_word_embeddings": False, "rms_norm_eps": 1e-5, "num_key_value_heads": 4},
        {"tie_word_embeddings": False, "num_key_value_heads": 1, "vocab_size": 520},
    ],
)
def test_logits_are_those_of_transformers(
    tokenizer_folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    source = checkpoint_source(tokenizer_folder, tmp_path / "model", **LLAMA | changes)
    reader = Llama2cReader(written(source, tmp_path / "out"))
    ids = encode_texts(source.tokenizer, ["春天来了，小猫在树下打盹。it's 12:30"])[0]
    theirs = AutoModelForCausalLM.from_pretrained(source.folder)
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0]
    logits = reader.logits(ids)
    assert logits is not None
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_bytes_of_model_bin(tokenizer_folder: Path, tmp_path: Path) -> None:
    source = checkpoint_source(tokenizer_folder, tmp_path / "model", **LLAMA, num_hidden_layers=1)
    folder = written(source, tmp_path / "out")
    data, model = (folder / "model.bin").read_bytes(), source.model
    rows = model.config.vocab_size
    assert struct.unpack("<7i", data[:28]) == (32, 48, 1, 4, 2, rows, 64)
    numbers = np.frombuffer(data, "<f4", offset=28)
    # embedding, norm, q, k, v, o, norm, gate, down, up, norm, cosines, sines
    sizes = [rows * 32, 32, 32 * 32, 16 * 32, 16 * 32, 32 * 32, 32, 48 * 32, 32 * 48, 48 * 32, 32]
    parts = np.split(numbers, np.cumsum([*sizes, 64 * 4]))
    assert len(parts[-1]) == 64 * 4
    ours = json.loads((folder / "token_ids.json").read_text())
    stream = math.sqrt(10)  # 1e-5 over 1e-6
    embedding = model.model.embed_tokens.weight.detach().numpy()
    np.testing.assert_allclose(parts[0].reshape(rows, 32), embedding[ours] * stream, rtol=1e-6)
    q = model.state_dict()["model.layers.0.self_attn.q_proj.weight"].numpy()
    # Row 1 of a head of width 8 is the partner of row 0: ours has it at 4.
    np.testing.assert_array_equal(parts[2].reshape(32, 32)[:4], q[[0, 4, 1, 5]])
    down = model.state_dict()["model.layers.0.mlp.down_proj.weight"].numpy()
    np.testing.assert_allclose(parts[8].reshape(32, 48), down * stream, rtol=1e-6)
    positions = np.arange(64)[:, None] / 10000 ** (np.arange(4) / 4)
    np.testing.assert_allclose(parts[-2].reshape(64, 4), np.cos(positions), atol=1e-5)


def test_tokenizer_bin_has_ids_where_run_c_wants_them(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    source = checkpoint_source(tokenizer_folder, tmp_path / "model", **LLAMA, vocab_size=510)
    folder = written(source, tmp_path / "out")
    data, place, pieces, scores = (folder / "tokenizer.bin").read_bytes(), 4, [], []
    while place < len(data):
        score, length = struct.unpack_from("<fi", data, place)
        assert length > 0  # run.c reads none as the end of the file
        pieces.append(data[place + 8 : place + 8 + length])
        scores.append(score)
        place += 8 + length
    assert struct.unpack_from("<i", data)[0] == max(map(len, pieces))
    ours = json.loads((folder / "token_ids.json").read_text())
    assert sorted(ours) == list(range(510)) and len(pieces) == 510
    assert ours[1] == document_token_id(source.tokenizer)
    assert pieces[3:259] == [b"<0x00>", *(bytes([byte]) for byte in range(1, 256))]
    assert pieces[ours.index(source.tokenizer.convert_tokens_to_ids("<think>"))] == b"<think>"
    assert scores[ours.index(source.tokenizer.convert_tokens_to_ids("<think>"))] < -1e10
    assert len(set(pieces)) == len(pieces) and not any(b"\0" in piece for piece in pieces)


def test_texts_have_the_same_ids_but_where_splitting_matters(
    tokenizer_folder: Path, tmp_path: Path, corpus: list[str]
) -> None:
    source = checkpoint_source(tokenizer_folder, tmp_path / "model", **LLAMA)
    reader = Llama2cReader(written(source, tmp_path / "out"))
    words = sorted({word for text in corpus for word in re.findall(r"[^\W\d]+", text)})
    texts = [*words, "罕见的字龘😀", "", "\t", "<|im_end|>"]
    for text, ids in zip(texts, encode_texts(source.tokenizer, texts), strict=True):
        assert reader.token_ids(text) == ids
    for text in corpus[:40]:  # with punctuation, which run.c joins with what follows
        ids = reader.token_ids(text)
        assert ids is not None and source.tokenizer.decode(ids) == text
    assert reader.token_ids("<|im_end|>", parse_special=True) is None
    assert reader.prompt([{"role": "user", "content": "你好"}], None) is None
    assert reader.stop_token_ids() == {document_token_id(source.tokenizer)}


def test_encode_joins_the_best_pair_first(tmp_path: Path) -> None:
    """By hand: a character with a token of its own, bytes of one without, and merges by score."""
    singles = [(b"<0x00>", 0.0), *((bytes([b]), 0.0) for b in range(1, 256))]
    more = [("中".encode(), 0.0), (b"ab", -2.0), (b"bc", -1.0), (b"abc", -3.0), (b"cd", -1e11)]
    pieces = [(b"u", -1e11), (b"s", -1e11), (b"e", -1e11), *singles, *more]
    with (tmp_path / "tokenizer.bin").open("wb") as file:
        file.write(struct.pack("<i", 6))
        for piece, score in pieces:
            file.write(struct.pack("<fi", score, len(piece)) + piece)
    encoder = Encoder(tmp_path / "tokenizer.bin", len(pieces))
    assert encoder.encode(b"abc") == [262]  # bc, then abc
    assert encoder.encode("ab中国".encode()) == [260, 259, *(byte + 3 for byte in "国".encode())]
    assert encoder.encode(b"cd") == [ord("c") + 3, ord("d") + 3]  # its score is too low


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"qk_norm": True}, "model.qk_norm=false"),
        ({"qk_norm": False, "attention_bias": True}, "model.attention_bias=false"),
        ({**LLAMA, "head_dim": 16}, "head_dim=16"),
        ({**LLAMA, "rope_theta": 1e6}, "rope_theta=1e+06"),
        ({**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": 2}}, "rope_type=linear"),
        ({"num_experts": 4}, "experts (qwen3_moe)"),
    ],
)
def test_what_the_layout_does_not_hold_is_refused(
    tokenizer_folder: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    source = checkpoint_source(tokenizer_folder, tmp_path / "model", **changes)
    with pytest.raises(UserError, match="write to=gguf instead") as refused:
        LLAMA2C.check(source, OPTIONS)
    assert said in str(refused.value)


def test_another_kind_of_tokenizer_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"<|endoftext|>": 0, "你好": 1}, unk_token="<|endoftext|>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<|endoftext|>")
    with pytest.raises(UserError, match="byte-level BPE"):
        llama2c_vocabulary(tokenizer, len(tokenizer))


def test_a_damaged_file_is_not_read(tokenizer_folder: Path, tmp_path: Path) -> None:
    source = checkpoint_source(tokenizer_folder, tmp_path / "model", **LLAMA)
    folder = written(source, tmp_path / "out")
    (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:-4])
    with pytest.raises(ValueError, match="its header says"):
        Llama2cReader(folder)
