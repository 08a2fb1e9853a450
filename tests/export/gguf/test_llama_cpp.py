"""GGUF files as llama.cpp reads them. Slow: a Python with llama-cpp-python in MENGYA_LLAMA_PYTHON, or here.

pip install llama-cpp-python (compiles for some minutes); then `pytest -m slow tests/export/gguf`.
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from mengya.errors import UserError, user_message
from mengya.export.gguf.format import GGUF, GgufOptions
from mengya.export.gguf.llama_cpp_process import VARIABLE, LlamaCppProcess, llama_python
from mengya.export.gguf.read_llama_cpp import LlamaCppReader
from mengya.export.gguf.tensor_types import BY_LLAMA_CPP, TypeName
from mengya.export.gguf.write import write_gguf
from mengya.export.parity.reference import Reference
from mengya.export.source import Source
from tests.helpers.export_source import small_source
from tests.helpers.random_model import FAMILIES
from tests.helpers.rope_scalings import SCALINGS, YARN

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(llama_python() is None, reason="no llama-cpp-python"),
]
IDS = [random.Random(0).randrange(300) for _ in range(60)]
LINEAR = SCALINGS["linear"]
SHAPES: list[tuple[str, dict[str, Any]]] = [
    *((family, {}) for family in FAMILIES),
    ("Qwen3", {"tie_word_embeddings": False, "head_dim": 24, "num_key_value_heads": 1}),
    ("Llama", {"head_dim": 24}),
    ("Qwen2Moe", {"tie_word_embeddings": False, "attention_bias": False}),
    ("Qwen3Moe", {"norm_topk_prob": False, "num_experts_per_tok": 1}),
    ("Qwen3Moe", {"first_k_dense_replace": 1}),
    ("Glm4Moe", {"rope_parameters": {"partial_rotary_factor": 0.5}}),
    ("Glm4Moe", {"qk_norm": False, "attention_bias": False, "norm_topk_prob": False}),
    ("Glm4Moe", {"n_group": 3, "topk_group": 3}),
    ("DeepseekV3", {"q_lora_rank": None}),
    *((family, {"rope_parameters": LINEAR}) for family in ("Qwen3", "Llama", "DeepseekV3")),
    *(
        (family, {"rope_parameters": YARN})
        for family in ("Qwen3", "Llama", "Glm4Moe", "DeepseekV3")
    ),
    *(
        (family, {"rope_parameters": {**YARN, **more}})
        for family in ("Qwen3", "DeepseekV3")
        for more in (
            {"mscale": 0.7, "mscale_all_dim": 1.3},
            {"attention_factor": 0.8},
            {"factor": 1.0},
        )
    ),
]


@torch.inference_mode()
def logits_of(source: Source, ids: list[int]) -> torch.Tensor:
    return source.model(torch.tensor([ids])).head_output[0]


def python() -> str:
    found = llama_python()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Rows that K-quants divide; weights of the size of trained ones."""
    folder = tmp_path_factory.mktemp("dense")
    source = small_source("Qwen3", folder, hidden_size=256, intermediate_size=512, head_dim=64)
    with torch.no_grad():
        for parameter in source.model.parameters():
            parameter.mul_(0.4)
    return source


@pytest.mark.parametrize(("family", "changes"), SHAPES)
def test_every_class_and_every_scaling_is_the_same_model(
    family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    source, path = small_source(family, tmp_path, **changes), tmp_path / "m.gguf"
    write_gguf(source, path, "F32")
    with LlamaCppReader(path, python()) as reader:
        found, expected = reader.logits(IDS), logits_of(source, IDS)
    assert (found - expected).norm() / expected.norm() < 5e-6


def test_latents_are_normalized_with_transformers_epsilon(tmp_path: Path) -> None:
    """llama.cpp has one epsilon for all norms; with small latents the other one shows."""
    source, path = small_source("DeepseekV3", tmp_path, rms_norm_eps=1e-3), tmp_path / "m.gguf"
    with torch.no_grad():
        for i in range(2):
            name = f"model.layers.{i}.self_attn.kv_a_proj_with_mqa.weight"
            source.model.get_parameter(name)[:12] *= 0.01
    write_gguf(source, path, "F32")
    with LlamaCppReader(path, python()) as reader:
        found, expected = reader.logits(IDS), logits_of(source, IDS)
    assert (found - expected).norm() / expected.norm() < 5e-6


def test_tokens_prompts_and_stop_tokens_are_ours(dense: Source, tmp_path: Path) -> None:
    write_gguf(dense, tmp_path / "m.gguf", "Q4_0")
    ours = Reference(dense.model, dense.tokenizer)
    with LlamaCppReader(tmp_path / "m.gguf", python()) as reader:
        for text in ours.texts:
            assert reader.token_ids(text) == ours.token_ids(text), text
        for chat, text in ours.prompts():
            assert reader.token_ids(text, True) == ours.token_ids(text, True), chat.name
            assert reader.prompt(chat.messages, chat.tools or None, chat.enable_thinking) == text
        assert reader.stop_token_ids() == ours.stop_token_ids()


@pytest.mark.parametrize("type_name", ["F32", "F16", "Q8_0"])
def test_greedy_continuation_is_ours(type_name: TypeName, dense: Source, tmp_path: Path) -> None:
    write_gguf(dense, tmp_path / "m.gguf", type_name)
    ids, expected = IDS[:5], IDS[:5]
    with LlamaCppReader(tmp_path / "m.gguf", python()) as reader:
        for _ in range(16):
            ids = [*ids, int(reader.logits(ids)[-1].argmax())]
            expected = [*expected, int(logits_of(dense, expected)[-1].argmax())]
    assert ids == expected


def written(source: Source, folder: Path, type_name: TypeName) -> tuple[int, float]:
    """(bytes, relative error) of the file in llama.cpp."""
    options = GgufOptions(type=type_name)
    GGUF.check(source, options)
    GGUF.write(source, folder, options)
    (path,) = folder.glob(f"*-{type_name}.gguf")
    with LlamaCppReader(path, python()) as reader:
        found, expected = reader.logits(IDS), logits_of(source, IDS)
    return path.stat().st_size, float((found - expected).norm() / expected.norm())


def test_types_by_size_and_error(dense: Source, tmp_path: Path) -> None:
    order: tuple[TypeName, ...] = ("F16", "Q8_0", *BY_LLAMA_CPP)
    sizes, errors = zip(*(written(dense, tmp_path, kind) for kind in order), strict=True)
    assert all(a > b for a, b in itertools.pairwise(sizes)), sizes
    worst = (2e-3, 0.03, 0.08, 0.12, 0.2, 0.2, 0.4)  # of random weights; trained ones forgive more
    assert all(error < most for error, most in zip(errors, worst, strict=True)), errors
    assert errors[0] < errors[1] < errors[2] < errors[3] < errors[4]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        f"{dense.folder.name}-{kind}.gguf" for kind in order
    )


def test_a_full_disk_is_named_when_llama_cpp_writes(dense: Source, tmp_path: Path) -> None:
    (tmp_path / ".m.gguf.partial").symlink_to("/dev/full")
    with pytest.raises(OSError) as raised:
        write_gguf(dense, tmp_path / "m.gguf", "Q4_K_M")
    assert "free some space" in str(user_message(raised.value))
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_none_is_an_error_and_not_an_abort(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(UserError, match=r"does not load .*m\.gguf"):
        LlamaCppReader(path, python())


def test_a_python_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere/python")
    with pytest.raises(UserError, match=rf"{VARIABLE}=/nowhere/python does not start"):
        LlamaCppProcess(python())
