"""GGUF files as transformers and the package gguf read them back."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, TokenType
from gguf.quants import dequantize

from mengya.errors import UserError, user_message
from mengya.export.gguf.read_transformers import TransformersGguf
from mengya.export.gguf.rounded import rounded_model
from mengya.export.gguf.tensor_types import TypeName
from mengya.export.gguf.write import write_gguf
from mengya.tokenizer.load import encode_texts, stop_token_ids
from tests.helpers.export_source import UNUSED_ROWS, small_source, small_tokenizer

IDS = [5, 40, 200, 17, 17, 301, 60, 9]
# The largest relative error of logits of random weights, which forgive nothing.
WORST: dict[TypeName, float] = {"F32": 0.0, "F16": 3e-3, "BF16": 0.03, "Q8_0": 0.06, "Q4_0": 0.6}


def logit_error(found: torch.Tensor | None, expected: torch.Tensor) -> float:
    assert found is not None
    return float((found - expected).norm() / expected.norm())


@torch.inference_mode()
def logits_of(source: Any) -> torch.Tensor:
    return source.model(torch.tensor([IDS])).head_output[0]


@pytest.mark.parametrize("type_name", list(WORST))
def test_every_type_that_numpy_writes_is_read_back(type_name: TypeName, tmp_path: Path) -> None:
    source, path = small_source("Qwen3", tmp_path), tmp_path / "m.gguf"
    assert write_gguf(source, path, type_name) == []
    reader = TransformersGguf(path, source.model.config)
    error = logit_error(reader.logits(IDS), logits_of(source))
    assert error <= WORST[type_name]
    assert error > 0 or type_name == "F32"
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("Qwen3", {"tie_word_embeddings": False, "num_key_value_heads": 1}),
        ("Llama", {}),
        ("Llama", {"head_dim": 24, "tie_word_embeddings": True}),
        ("Qwen2", {}),
        ("Qwen3Moe", {}),
        ("Qwen2Moe", {}),
    ],
)
def test_every_class_that_transformers_reads_is_the_same_model(
    family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    source, path = small_source(family, tmp_path, **changes), tmp_path / "m.gguf"
    write_gguf(source, path, "F32")
    reader = TransformersGguf(path, source.model.config)
    assert logit_error(reader.logits(IDS), logits_of(source)) < 1e-6


@pytest.mark.parametrize(
    ("family", "type_name"),
    [("Qwen3", "Q4_0"), ("Llama", "Q8_0"), ("Qwen3Moe", "Q4_0"), ("Llama", "BF16")],
)
def test_the_rounded_model_has_the_numbers_of_the_file(
    family: str, type_name: TypeName, tmp_path: Path
) -> None:
    source, path = small_source(family, tmp_path, moe_intermediate_size=None), tmp_path / "m.gguf"
    write_gguf(source, path, type_name)
    rounded = rounded_model(source.model, type_name)
    assert rounded is not None
    reader = TransformersGguf(path, source.model.config)
    expected = logits_of(replace(source, model=rounded))
    assert logit_error(reader.logits(IDS), expected) < 2e-6
    assert logit_error(logits_of(source), expected) > 1e-3


def test_shape_and_tokenizer_are_in_the_file_itself(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "town" / "checkpoints" / "step-000100"
    source, path = small_source("Qwen3", run), tmp_path / "m.gguf"
    write_gguf(replace(source, license="mit", languages=("zh", "en")), path, "Q8_0")
    values = {name: field.contents() for name, field in GGUFReader(path).fields.items()}
    config, tokenizer = source.model.config, small_tokenizer()
    assert values["general.name"] == "town"
    assert (values["general.license"], values["general.languages"]) == ("mit", ["zh", "en"])
    assert values["general.sampling.top_p"] == pytest.approx(0.95)
    expected = {
        "context_length": 128, "embedding_length": 64, "block_count": 2, "attention.head_count": 4,
        "attention.head_count_kv": 2, "attention.key_length": 16, "attention.value_length": 16,
        "rope.dimension_count": 16, "rope.freq_base": 5000.0, "vocab_size": config.vocab_size,
    }  # fmt: skip
    assert {name: values[f"qwen3.{name}"] for name in expected} == expected
    assert values["qwen3.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert values["tokenizer.ggml.pre"] == "qwen2"
    assert values["tokenizer.ggml.bos_token_id"] == tokenizer.bos_token_id
    assert values["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert values["tokenizer.ggml.eot_token_id"] == tokenizer.eos_token_id
    assert values["tokenizer.ggml.eom_token_id"] == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert values["tokenizer.ggml.padding_token_id"] == tokenizer.pad_token_id
    assert values["tokenizer.ggml.add_bos_token"] is False
    assert "generation" not in values["tokenizer.chat_template"].replace(
        "{#- generation -#}", ""
    ).replace("{#- endgeneration -#}", "").replace("add_generation_prompt", "")
    kinds = dict(
        zip(values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"], strict=True)
    )
    assert len(kinds) == config.vocab_size
    assert kinds["<|im_end|>"] == kinds["<|pad|>"] == TokenType.CONTROL
    assert kinds["<think>"] == kinds["</tool_call>"] == TokenType.USER_DEFINED
    assert kinds["a"] == TokenType.NORMAL
    assert list(kinds.values())[-UNUSED_ROWS:] == [TokenType.UNUSED] * UNUSED_ROWS


def test_tokens_of_texts_and_prompts_are_ours(tmp_path: Path) -> None:
    source, path = small_source("Qwen3", tmp_path), tmp_path / "m.gguf"
    write_gguf(source, path, "Q4_0")
    reader = TransformersGguf(path, source.model.config)
    texts = ["", " ", "今天  天气\n\n不错", "𠮷👨‍👩‍👧 it's 12345", "<|im_end|>是文字", "\t\tx\r\n"]
    assert [reader.token_ids(text) for text in texts] == encode_texts(source.tokenizer, texts)
    assert reader.stop_token_ids() == set(stop_token_ids(source.tokenizer))
    assert reader.token_ids("<|im_end|>", parse_special=True) == [source.tokenizer.eos_token_id]


def test_rows_that_no_block_divides_stay_half_precision(tmp_path: Path) -> None:
    source, path = small_source("Qwen3", tmp_path, intermediate_size=80), tmp_path / "m.gguf"
    larger = write_gguf(source, path, "Q4_0")
    assert larger == ["blk.0.ffn_down.weight", "blk.1.ffn_down.weight"]
    kinds = {tensor.name: tensor.tensor_type for tensor in GGUFReader(path).tensors}
    assert kinds["blk.0.ffn_down.weight"] == GGMLQuantizationType.F16
    assert kinds["blk.0.ffn_up.weight"] == GGMLQuantizationType.Q4_0
    assert kinds["token_embd.weight"] == GGMLQuantizationType.Q8_0  # the output matrix as well
    assert kinds["blk.0.attn_norm.weight"] == GGMLQuantizationType.F32


def test_ternary_weights_are_held_exactly(tmp_path: Path) -> None:
    source, path = small_source("Qwen3", tmp_path, hidden_size=256), tmp_path / "m.gguf"
    with pytest.raises(UserError, match=r"not ternary.*gguf\.type=Q2_K"):
        write_gguf(source, path, "TQ2_0")
    assert not list(tmp_path.iterdir())
    weight = source.model.get_parameter("model.layers.0.mlp.up_proj.weight")
    with torch.no_grad():
        for name, parameter in source.model.named_parameters():
            if parameter.ndim == 2 and "layers" in name:
                parameter.copy_(parameter.sign() * 0.0625 * (parameter.abs() > 0.1))
    larger = write_gguf(source, path, "TQ2_0")
    assert {name.split(".")[2] for name in larger} == {"attn_output", "ffn_down"}  # 64 and 96 wide
    stored = {t.name: t for t in GGUFReader(path).tensors}
    up, down = stored["blk.0.ffn_up.weight"], stored["blk.0.ffn_down.weight"]
    assert up.tensor_type == GGMLQuantizationType.TQ2_0
    assert down.tensor_type == GGMLQuantizationType.Q8_0
    torch.testing.assert_close(torch.from_numpy(dequantize(up.data, up.tensor_type)), weight.data)


def test_weights_that_a_type_cannot_hold_are_refused(tmp_path: Path) -> None:
    source, path = small_source("Qwen3", tmp_path), tmp_path / "m.gguf"
    weight = source.model.get_parameter("model.layers.1.mlp.down_proj.weight")
    weight.data[3, 4] = 1e5
    with pytest.raises(UserError, match=r"blk\.1\.ffn_down\.weight.*65504.*gguf\.type=BF16"):
        write_gguf(source, path, "F16")
    write_gguf(source, path, "BF16")
    path.unlink()
    weight.data[3, 4] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        write_gguf(source, path, "Q8_0")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's own answer: /dev/full takes no byte."""
    source = small_source("Qwen3", tmp_path)
    (tmp_path / ".m.gguf.partial").symlink_to("/dev/full")
    with pytest.raises(OSError) as raised:
        write_gguf(source, tmp_path / "m.gguf", "Q8_0")
    assert raised.value.errno == errno.ENOSPC
    assert "free some space" in str(user_message(raised.value))
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    source = small_source("Qwen3", tmp_path)
    few = small_source("Qwen3", tmp_path, vocab_size=100)
    with pytest.raises(UserError, match="100 rows"):
        write_gguf(replace(source, model=few.model), tmp_path / "m.gguf")
