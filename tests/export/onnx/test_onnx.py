"""The folder for browsers: what onnxruntime computes from it, with and without a cache."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from mengya.errors import UserError
from mengya.export.onnx import write
from mengya.export.onnx.format import ONNX, OnnxOptions
from mengya.export.onnx.read import OnnxFolder
from mengya.export.source import Source
from mengya.tokenizer.chat_template import encode_prompt
from mengya.tokenizer.load import stop_token_ids
from tests.helpers.checkpoint_source import checkpoint_source
from tests.tokenizer.conftest import corpus, tokenizer, tokenizer_folder

__all__ = ["corpus", "tokenizer", "tokenizer_folder"]
OPTIONS = OnnxOptions()


@pytest.fixture(autouse=True)
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest keeps what is logged, so torch would write its trace: three times the seconds."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)


def written(source: Source, folder: Path) -> Path:
    folder.mkdir()
    ONNX.check(source, OPTIONS)
    ONNX.write(source, folder, OPTIONS)
    return folder


def errors(source: Source, reader: OnnxFolder, ids: list[int], quantile: float = 1) -> float:
    """Relative error of a position; the worst one by default."""
    with torch.no_grad():
        ours = source.model(torch.tensor([ids])).head_output[0]
    theirs = reader.logits(ids)
    assert theirs is not None
    return float(((theirs - ours).norm(dim=-1) / ours.norm(dim=-1)).quantile(quantile))


def test_a_qwen3_with_a_window(
    tokenizer_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Everything at once, as each export takes seconds."""
    source = checkpoint_source(
        tokenizer_folder, tmp_path / "model", num_hidden_layers=1, sliding_window=5
    )
    folder = written(source, tmp_path / "out")
    assert capfd.readouterr() == ("", "")  # the exporter and the quantizer talk a lot
    assert logging.getLogger().level == logging.WARNING
    full, int8 = ONNX.readers(source, folder, OPTIONS)
    messages = [{"role": "user", "content": "你好，{% generation %}"}]
    ids = encode_prompt(source.tokenizer, messages)
    assert isinstance(full, OnnxFolder) and isinstance(int8, OnnxFolder)
    assert errors(source, full, ids) < 1e-5
    assert errors(source, full, ids[:1]) < 1e-5  # no token before, none after
    assert errors(source, int8, ids) < 0.2
    assert full.token_ids(full.prompt(messages, None) or "", parse_special=True) == ids
    assert full.stop_token_ids() == set(stop_token_ids(source.tokenizer))

    # Padded rows of several lengths, in one batch and with a cache.
    session = onnxruntime.InferenceSession(str(folder / "onnx" / "model.onnx"))
    rows = np.array([ids[:8], [0, 0, 0, *ids[:5]]])
    mask = np.array([[1] * 8, [0] * 3 + [1] * 5])
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    empty = {
        value.name: np.zeros((2, 2, 0, 8), np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past")
    }
    first = {
        "input_ids": rows[:, :6],
        "attention_mask": mask[:, :6],
        "position_ids": positions[:, :6],
    }
    names = [output.name for output in session.get_outputs()]
    made = dict(zip(names, session.run(None, {**first, **empty}), strict=True))
    held = {n.replace("present", "past_key_values"): made[n] for n in names if n != "logits"}
    then = {"input_ids": rows[:, 6:], "attention_mask": mask, "position_ids": positions[:, 6:]}
    last = np.asarray(session.run(["logits"], {**then, **held})[0])[:, -1]
    for row, length in zip(last, (8, 5), strict=True):
        with torch.no_grad():
            ours = source.model(torch.tensor([ids[:length]])).head_output[0, -1]
        np.testing.assert_allclose(row, ours.numpy(), rtol=1e-4, atol=1e-4)

    # transformers.js makes its first cache by these names, and reads the template here alone.
    shapes = {value.name: value.shape for value in session.get_inputs()}
    assert shapes["past_key_values.0.value"] == ["batch_size", 2, "past_sequence_length", 8]
    assert shapes["input_ids"] == ["batch_size", "sequence_length"]
    assert names[:3] == ["logits", "present.0.key", "present.0.value"]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert "{% generation" not in config["chat_template"]
    assert "{%- generation" not in config["chat_template"]
    assert not (folder / "chat_template.jinja").exists()
    assert json.loads((folder / "config.json").read_text())["model_type"] == "qwen3"

    # The tied embedding is there once, and no path of this machine.
    parameters = sum(p.numel() for p in source.model.parameters())
    data = (folder / "onnx" / "model.onnx").read_bytes()
    assert 4 * parameters < len(data) < 4 * parameters + 60_000
    assert b"site-packages" not in data and b"mengya" not in data


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"sliding_window": 5, "max_window_layers": 1},
        {"qk_norm": False, "tie_word_embeddings": False},
        {"qk_norm": False, "attention_bias": True, "num_key_value_heads": 1},
        {"num_experts": 5, "moe_intermediate_size": 16},
        {"num_experts": 5, "moe_intermediate_size": 16, "n_shared_experts": 2, "qk_norm": False},
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 2,
                "original_max_position_embeddings": 32,
            }
        },
        {"rope_parameters": {"rope_type": "linear", "factor": 2}, "head_dim": 16},
    ],
)
def test_other_classes(tokenizer_folder: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    source = checkpoint_source(tokenizer_folder, tmp_path / "model", **changes)
    folder = written(source, tmp_path / "out")
    full, int8 = ONNX.readers(source, folder, OPTIONS)
    assert isinstance(full, OnnxFolder) and isinstance(int8, OnnxFolder)
    ids = list(range(3, 45))
    assert errors(source, full, ids) < 1e-5
    # Of a mixture: rounding sends a token to another expert here and there.
    assert errors(source, int8, ids, quantile=0.5) < 0.2


def test_a_graph_of_another_model_is_found(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = checkpoint_source(tokenizer_folder, tmp_path / "model", num_hidden_layers=1)
    other = checkpoint_source(tokenizer_folder, tmp_path / "other", num_hidden_layers=1)
    with torch.no_grad():
        other.model.model.embed_tokens.weight[7] += 1
    monkeypatch.setattr(OnnxFolder, "__init__", lambda *_: None)
    monkeypatch.setattr(
        OnnxFolder,
        "logits",
        lambda _, ids: other.model(torch.tensor([ids])).head_output[0].detach(),
    )
    with pytest.raises(UserError, match="is not the model"):
        list(ONNX.readers(source, tmp_path, OPTIONS))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"num_experts": 4, "n_shared_experts": 1, "scoring_func": "sigmoid"},
            "glm4_moe: transformers.js has no",
        ),
        (
            {"kv_lora_rank": 12, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 14,
             "qk_norm": False, "num_key_value_heads": 4},
            "deepseek_v3: the graph has no cache",
        ),
    ],
)  # fmt: skip
def test_classes_that_are_refused(
    tokenizer_folder: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    source = checkpoint_source(tokenizer_folder, tmp_path / "model", **changes)
    with pytest.raises(UserError, match="to=gguf") as refused:
        ONNX.check(source, OPTIONS)
    assert said in str(refused.value)


def test_a_model_of_two_gigabytes_is_refused(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = checkpoint_source(tokenizer_folder, tmp_path / "model")
    monkeypatch.setattr(write, "_MOST_BYTES", 1000)
    with pytest.raises(UserError, match="less than 2 GiB"):
        ONNX.check(source, OPTIONS)
