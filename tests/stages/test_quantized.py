"""A quantized folder does what its full one does: chat, engine, server, evaluation; no more is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import mengya
from mengya.config import load_config
from mengya.errors import UserError
from mengya.generation.batch.engine import BatchEngine, EngineConfig, Request
from mengya.generation.batch.memory import engine_memory
from mengya.generation.engine import generate
from mengya.generation.sampling import SamplingParams
from mengya.kernels.linear import pack_linears
from mengya.kernels.quantized.weight import Scheme
from mengya.models.hf.open_checkpoint import checkpoint_on_meta, open_checkpoint, standard_folder
from mengya.models.quantized.layers import QuantizedLinear, parameter_count
from mengya.models.quantized.load import load_dequantized
from mengya.serving.runtime.model_source import model_source
from mengya.serving.runtime.served import load_served
from mengya.serving.vllm_command import check_layout
from mengya.stages.extend import ExtendConfig
from mengya.stages.extend import run as extend
from mengya.stages.plan import make_plan
from mengya.stages.sft import SftConfig
from mengya.stages.sft import run as sft
from mengya.tokenizer.load import load_tokenizer, save_tokenizer
from mengya.tokenizer.train import train_tokenizer
from tests.helpers.engine_batch import run_all
from tests.helpers.learned_chat import THOUGHT, learned_model
from tests.helpers.quantized_folder import write_rounded
from tests.helpers.random_model import random_model, tiny_config
from tests.helpers.stage_fixtures import StageFixtures

CPU = torch.device("cpu")
GREEDY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 60}


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    text = "我算好的，是三。龘字难写𠮷🙂想"
    save_tokenizer(train_tokenizer([text] * 4, 280, show_progress=False), folder)
    return folder


@pytest.fixture(scope="module")
def folder(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has memorized a conversation, in 8 bits."""
    model = learned_model(load_tokenizer(tokenizer_folder))
    path = tmp_path_factory.mktemp("model") / "int8"
    write_rounded(model, Scheme(8, 32), "compressed-tensors", tokenizer_folder, path)
    return path


def test_it_chats_and_says_what_it_is(folder: Path) -> None:
    model = mengya.load(folder, device="cpu")
    assert model.chat(THOUGHT[:1], **GREEDY).endswith("好的𠮷")
    full = parameter_count(model.network)
    assert full == 300 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64 + 2 * 16) + 64
    assert f"{full / 1e6:.2f}M parameters, int8 and float32 in " in repr(model)


@pytest.mark.parametrize("family", ["Qwen3", "Qwen2", "Glm4Moe", "DeepseekV3"])
def test_both_decode_loops_agree(family: str, tokenizer_folder: Path, tmp_path: Path) -> None:
    model = random_model(tiny_config(family, vocab_size=300))
    write_rounded(model, Scheme(4), "compressed-tensors", tokenizer_folder, tmp_path)
    network, _ = open_checkpoint(tmp_path, CPU, torch.float32)
    kinds = {type(m) for m in network.model.layers.modules()}
    assert QuantizedLinear in kinds
    name = "model.layers.0.self_attn.o_proj.packed"
    assert pack_linears(network).get_submodule(name) is network.get_submodule(name)
    params = SamplingParams(temperature=0, max_new_tokens=6)
    prompts = [[5, 9, 41, 7], [100, 3, 77]]
    expected = generate(network, prompts, params, [])
    engine = BatchEngine(network, EngineConfig(max_running=2, cache_tokens=256))
    found = run_all(engine, [Request(tuple(p), params, frozenset()) for p in prompts])
    assert [outcome.tokens for outcome in found] == expected


def test_the_server_knows_its_size(folder: Path) -> None:
    batch = EngineConfig(max_running=2, cache_tokens=256)
    source = model_source(
        folder, "m", kind="auto", device="cpu", threads=None, dtype="auto", batch=batch
    )
    served = source.load()
    assert served.engine.memory_bytes == source.memory.total
    assert source.facts == served.facts
    assert (source.facts.numbers, source.facts.size < source.memory.total) == ("int8", True)
    memory = engine_memory(
        checkpoint_on_meta(folder, CPU, torch.bfloat16), batch, torch.bfloat16, CPU
    )
    assert memory.weights < source.memory.weights


def test_adapters_need_a_full_base(folder: Path) -> None:
    with pytest.raises(UserError, match="mengya merge ADAPTER out=FOLDER"):
        load_served(
            folder, "m", {"a": folder}, kind="chat", device="cpu", threads=None, dtype="auto",
            batch=EngineConfig(),
        )  # fmt: skip


@pytest.mark.parametrize("layout", ["compressed-tensors", "gptq"])
@torch.no_grad()
def test_exams_get_a_folder_that_needs_no_other_package(
    layout: str, tokenizer_folder: Path, tmp_path: Path
) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 96}
    model = random_model(tiny_config("Qwen3", vocab_size=300, **sizes))
    write_rounded(model, Scheme(4, 32), layout, tokenizer_folder, tmp_path)
    network, _ = open_checkpoint(tmp_path, CPU, torch.float32)
    full = load_dequantized(tmp_path)
    ids = torch.arange(12)[None]
    with standard_folder(tmp_path) as standard:
        assert "quantization_config" not in json.loads((standard / "config.json").read_text())
        theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(standard)
        assert load_tokenizer(standard).get_vocab() == load_tokenizer(tmp_path).get_vocab()
    logits = full.decode(ids, None)
    torch.testing.assert_close(theirs.eval()(ids).logits, logits)
    # Kernels of quantized weights round to bf16 on a CPU.
    assert (network.decode(ids, None) - logits).norm() < 0.03 * logits.norm()
    with standard_folder(tmp_path, quantized=True) as as_it_is:
        assert as_it_is == tmp_path


def test_text_is_measured(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("好的，我算。", encoding="utf-8")
    result = mengya.evaluate(
        folder, texts=str(tmp_path / "text.txt"), out=str(tmp_path / "out.json"), device="cpu"
    )
    assert result["text"]["bits_per_char"] > 0


def test_it_is_not_trained(folder: Path, fixtures: StageFixtures, tmp_path: Path) -> None:
    keys = fixtures.settings("conversation", tmp_path / "run", init_from=folder)
    with pytest.raises(UserError, match="its weights can be used, but not trained"):
        sft(load_config(SftConfig, None, keys))
    recipe = tmp_path / "sft.yaml"
    recipe.write_text(f"init_from: {folder}\nrun_dir: {tmp_path / 'run'}\nmax_steps: 3\n")
    with pytest.raises(UserError, match="its weights can be used, but not trained"):
        make_plan(recipe, [f"data.train={fixtures.shards['conversation'][0]}"])
    with pytest.raises(UserError, match="its weights can be used, but not trained"):
        extend(ExtendConfig(checkpoint=folder, out=tmp_path / "out", tokens=["字字"]))
    assert not (tmp_path / "out").exists()


def test_vllm_gets_what_it_reads(folder: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    check_layout(folder)
    sizes = {"hidden_size": 64, "intermediate_size": 96}
    model = random_model(tiny_config("Qwen3", vocab_size=300, **sizes))
    write_rounded(model, Scheme(3, 32), "gptq", tokenizer_folder, tmp_path / "gptq")
    check_layout(tmp_path / "gptq")
    write_rounded(model, Scheme(3, 32), "compressed-tensors", tokenizer_folder, tmp_path / "ct")
    with pytest.raises(UserError, match="weights of 3 bits, and vLLM reads 4 and 8"):
        check_layout(tmp_path / "ct")
