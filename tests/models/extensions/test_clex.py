"""CLEX: the flow and its integration, the factor by length, its own folders, and freezing as longrope."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mengya.errors import UserError
from mengya.generation.batch.engine import BatchEngine
from mengya.generation.batch.request import EngineConfig
from mengya.models.cache.kv import KVCache
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ContextExtension
from mengya.models.extensions.clex import Clex
from mengya.models.extensions.freeze import freeze_rope
from mengya.models.hf.checkpoint import load_causal_lm, save_hf_folder
from mengya.models.hf.config import load_model_config
from tests.helpers.oracle import assert_near
from tests.helpers.packed_row import packed_row
from tests.helpers.random_model import random_model, tiny_config

TRAINED, FACTOR = 16, 4.0
CLEX = {"rope_type": "clex", "factor": FACTOR, "original_max_position_embeddings": TRAINED}


@pytest.fixture(params=["Qwen3", "Llama", "Qwen2", "Glm4Moe", "DeepseekV3 dense"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(family: str) -> CausalLM:
    """Its flow far from the start, too."""
    model = random_model(tiny_config(family, rope_parameters=CLEX, max_position_embeddings=64))
    with torch.no_grad():  # frequencies stay such that fp32 knows the angles
        flow_of(model).down_proj.mul_(0.2)
    return model


def ids_of(length: int) -> torch.Tensor:
    return torch.randint(101, (2, length), generator=torch.Generator().manual_seed(length))


def flow_of(model: CausalLM) -> Clex:
    assert isinstance(model.model.learned_rope, Clex)
    return model.model.learned_rope


def test_untrained_it_is_ntk_scaling() -> None:
    config = tiny_config("Llama", head_dim=32, rope_parameters=CLEX, rope_theta=10_000.0)
    clex = flow_of(CausalLM(config))
    for t in (1.0, 1.5, 4.0):
        exponents = torch.arange(0, 32, 2) / 32
        theta = 10_000.0 * (2 * t - 1) ** (32 / 30)
        found = clex.frequencies(torch.tensor(t))
        torch.testing.assert_close(found, theta**-exponents, rtol=1e-3, atol=0)


@torch.no_grad()
def test_the_integration_is_exact_enough(model: CausalLM) -> None:
    """Against many small Euler steps of the same flow, in fp64."""
    clex, t = flow_of(model), 3.0
    pairs = torch.arange(clex.width // 2, dtype=torch.float64)
    z = -torch.log(torch.tensor(clex.theta, dtype=torch.float64)) * 2 * pairs / clex.width
    up, down, steps = clex.up_proj.double(), clex.down_proj.double(), 40_000
    for i in range(steps):
        time = 1 + (t - 1) * i / steps
        learned = torch.nn.functional.silu(z @ up.T) @ down.T
        slope = learned - 2 * pairs / (clex.width - 2) * 2 / (2 * time - 1)
        z = z + (t - 1) / steps * slope
    found = clex.frequencies(torch.tensor(t)).double()
    torch.testing.assert_close(found, z.exp(), rtol=2e-3, atol=0)


@torch.no_grad()
def test_within_the_trained_context_it_is_the_plain_model(model: CausalLM, family: str) -> None:
    plain = CausalLM(tiny_config(family)).eval()
    state = {n: t for n, t in model.state_dict().items() if not n.startswith("model.clex.")}
    plain.load_state_dict(state)
    assert_near(model(ids_of(TRAINED)).head_output, plain(ids_of(TRAINED)).head_output)
    longer = ids_of(TRAINED + 1)
    assert (model(longer).head_output - plain(longer).head_output).abs().max() > 1e-3


@torch.no_grad()
def test_causal_and_documents_apart_at_a_given_factor(model: CausalLM) -> None:
    row = ids_of(40)[:1]
    inputs = packed_row((36, 4), 40)
    before = model(row, **inputs).head_output
    changed = row.clone()
    changed[:, 20] = (row[:, 20] + 1) % 101
    after = model(changed, **inputs).head_output
    torch.testing.assert_close(after[:, :20], before[:, :20], atol=1e-5, rtol=0)
    torch.testing.assert_close(after[:, 36:], before[:, 36:], atol=1e-5, rtol=0)
    cache = KVCache(2)  # within one integer factor decoding is the full forward
    parts = [model.decode(chunk, cache) for chunk in ids_of(48).split([33, *[1] * 15], 1)]
    assert_near(torch.cat(parts, 1), model(ids_of(48)).head_output)


def test_training_draws_the_factor_and_learns_the_flow(model: CausalLM) -> None:
    model.train()
    ids = ids_of(20)
    torch.manual_seed(0)
    first = model(ids).head_output
    second = model(ids).head_output
    assert (first - second).abs().max() > 1e-4
    torch.manual_seed(0)
    torch.testing.assert_close(model(ids).head_output, first)
    first.square().mean().backward()
    for parameter in flow_of(model).parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0


@torch.no_grad()
def test_its_own_folder_comes_back_and_transformers_refuses_it(
    model: CausalLM, tmp_path: Path
) -> None:
    save_hf_folder(model, model.config, tmp_path)
    assert load_model_config(tmp_path) == model.config
    assert torch.equal(
        load_causal_lm(tmp_path).eval()(ids_of(40)).head_output, model(ids_of(40)).head_output
    )
    with pytest.raises(ValueError, match="mengya_clex"):
        transformers.AutoConfig.from_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {n: t for n, t in load_file(file).items() if ".clex." not in n}
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"missing, such as model\.clex"):
        load_causal_lm(tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("factor", [1.0, 2.0, 4.0])
def test_folded_at_a_factor_transformers_gives_the_same(
    model: CausalLM, factor: float, tmp_path: Path
) -> None:
    folded = freeze_rope(model, factor)
    save_hf_folder(folded, folded.config, tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["rope_parameters"]["rope_type"] == "longrope"
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = ids_of(int(TRAINED * factor))  # CLEX takes this factor for this length
    expected = model(ids).head_output
    assert_near(theirs.eval()(ids).logits, expected, 2e-5)
    assert_near(load_causal_lm(tmp_path).eval()(ids).head_output, expected, 2e-5)
    # Frozen: a short text is read at the same factor.
    short = ids_of(8)
    assert_near(theirs(short).logits, folded(short).head_output, 2e-5)
    assert ((model(short).head_output - folded(short).head_output).abs().max() > 1e-3) == (
        factor > 1
    )


def test_a_window_is_kept_and_an_edited_folder_refused(tmp_path: Path) -> None:
    config = tiny_config("Qwen3", rope_parameters=CLEX, sliding_window=8, max_window_layers=1)
    model = random_model(config)
    save_hf_folder(model, config, tmp_path)
    assert load_model_config(tmp_path) == config
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    for changes in ({"base_model_type": "gpt2"}, {"rope_parameters": {"rope_type": "clex"}}):
        path.write_text(json.dumps({**values, **changes}))
        with pytest.raises(UserError, match="needs base_model_type"):
            load_model_config(tmp_path)


def test_a_plain_folder_is_extended_with_a_fresh_flow(tmp_path: Path) -> None:
    plain = random_model(tiny_config("Qwen3", max_position_embeddings=TRAINED))
    save_hf_folder(plain, plain.config, tmp_path)
    stretch = ContextExtension.model_validate(
        {"max_position_embeddings": 64, "rope_parameters": CLEX}
    )
    model = load_causal_lm(tmp_path, config=plain.config.extend_context(stretch)).eval()
    assert flow_of(model).down_proj.abs().max() == 0 and flow_of(model).up_proj.abs().max() > 0
    assert_near(model(ids_of(TRAINED)).head_output, plain(ids_of(TRAINED)).head_output)


def test_what_it_cannot_do_is_refused(model: CausalLM) -> None:
    with pytest.raises(UserError, match="between 1 and 4"):
        freeze_rope(model, 8.0)
    with pytest.raises(UserError, match="leave factor out"):
        freeze_rope(random_model(tiny_config("Qwen3")), 2.0)
    if model.config.kv_lora_rank is None:
        with pytest.raises(UserError, match=r"mengya merge CHECKPOINT out=FOLDER factor=4"):
            BatchEngine(model, EngineConfig())
