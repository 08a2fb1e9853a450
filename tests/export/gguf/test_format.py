"""to=gguf through the verb, and what it says before anything is written."""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import normalizers

from mengya.errors import UserError
from mengya.export.gguf.format import GGUF, GgufOptions
from mengya.export.gguf.llama_cpp_process import VARIABLE
from mengya.export.parity.result import FILE
from mengya.models.hf.checkpoint import save_hf_folder
from mengya.stages.export import ExportConfig, run
from mengya.tokenizer.load import save_tokenizer
from tests.helpers.export_source import small_source, small_tokenizer


@pytest.fixture
def without_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "llama_cpp" else find(n, *a)
    )


@pytest.mark.parametrize("to", ["gguf", "ollama"])
def test_the_verb_writes_and_proves_it(to: str, tmp_path: Path, without_llama_cpp: None) -> None:
    source = small_source("Qwen3", tmp_path, initializer_range=0.02)
    folder, out = tmp_path / "town", tmp_path / "out"
    save_hf_folder(source.model, source.model.config, folder)
    save_tokenizer(small_tokenizer(), folder)
    values = {"checkpoint": folder, "to": to, "out": out, to: {"type": "F16"}}
    run(ExportConfig.model_validate(values | {"parity": {"max_characters": 200}}))
    files = {"gguf": ["town-F16.gguf"], "ollama": ["Modelfile", "model.gguf"]}[to]
    assert set(files) | {FILE, "README.md"} <= {p.name for p in out.iterdir()}
    assert "to=" not in (out / "README.md").read_text(encoding="utf-8")


def test_file_names_hold_the_name_and_the_type(tmp_path: Path) -> None:
    source = replace(small_source("Qwen3", tmp_path), name="小镇 v1/2")
    GGUF.write(source, tmp_path, GgufOptions(type="Q4_0"))
    assert [p.name for p in tmp_path.iterdir()] == ["小镇-v1-2-Q4_0.gguf"]


@pytest.mark.parametrize(
    ("family", "type_name", "reason"),
    [
        ("Qwen3", "Q4_K_M", "type=Q4_K_M needs llama.cpp"),
        ("DeepseekV3", "Q8_0", "reading a deepseek_v3 back"),
    ],
)
def test_what_needs_llama_cpp_says_so_at_once(
    family: str, type_name: str, reason: str, tmp_path: Path, without_llama_cpp: None
) -> None:
    options = GgufOptions.model_validate({"type": type_name})
    with pytest.raises(UserError, match=reason) as raised:
        GGUF.check(small_source(family, tmp_path), options)
    assert "pip install -e '.[llamacpp]'" in str(raised.value)
    assert VARIABLE in str(raised.value)


def test_a_quantized_source_and_larger_types_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {}}')
    source = small_source("Qwen3", tmp_path, intermediate_size=80)
    GGUF.write(source, tmp_path, GgufOptions(type="Q4_0"))
    said = capsys.readouterr().err
    assert "is quantized: its numbers are made full first, and then rounded to Q4_0" in said
    assert "Q4_0 does not fit the rows of 2 tensors (ffn_down.weight)" in said


def test_texts_that_a_tokenizer_composes_may_differ(tmp_path: Path) -> None:
    """llama.cpp has no NFC: the bound counts the texts that are not composed, and no more."""
    source = small_source("Qwen3", tmp_path)
    assert GGUF.bounds(source, GgufOptions()).token_ids == 0
    composing = copy.deepcopy(small_tokenizer())
    composing.backend_tokenizer.normalizer = normalizers.NFC()
    differing = GGUF.bounds(replace(source, tokenizer=composing), GgufOptions()).token_ids
    assert differing is not None
    assert 3 <= differing <= 40
