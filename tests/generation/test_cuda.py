"""The batch engine on a GPU: what it says there is what transformers and the CPU say."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mengya.generation.batch.decode_graphs import graph_sizes
from mengya.generation.batch.engine import BatchEngine, EngineConfig, Request
from mengya.generation.sampling import SamplingParams
from mengya.kernels.linear import can_merge
from mengya.models.hf.checkpoint import save_hf_folder
from tests.helpers.engine_batch import LATENT, drain, mixed_requests, prompts, run_all
from tests.helpers.random_model import small_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "qwen2": {"qk_norm": False, "attention_bias": True},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 24},
    "deepseek_v3": LATENT,
}
GREEDY = SamplingParams(max_new_tokens=20, temperature=0)


@pytest.fixture(autouse=True)
def exact_products() -> None:
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_transformers_token_by_token(family: str, tmp_path: Path) -> None:
    model = small_model(**FAMILIES[family])
    save_hf_folder(model, model.config, tmp_path, pad_token_id=0)
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    theirs.cuda()
    requests = [Request(p, GREEDY) for p in prompts(40)]
    settings = EngineConfig(max_running=17, page_size=4, prefill_chunk=64)
    for request, outcome in zip(
        requests, run_all(BatchEngine(model.cuda(), settings), requests, per_step=3), strict=True
    ):
        ids = torch.tensor([request.prompt], device="cuda")
        out = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20,
            eos_token_id=-1,
        )  # fmt: skip
        assert outcome.tokens == out[0, len(request.prompt) :].tolist()


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("overlap", [False, True])
def test_every_setting_says_what_the_cpu_says(graphs: bool, overlap: bool) -> None:
    """In company on the GPU against alone on the CPU; pages are so few that some are preempted."""
    requests = mixed_requests(28)
    plain = [run_all(BatchEngine(small_model(), EngineConfig()), [r])[0] for r in requests]
    settings = EngineConfig(
        max_running=11, page_size=8, cache_tokens=400, prefill_chunk=24, cuda_graphs=graphs,
        overlap=overlap,
    )  # fmt: skip
    got = run_all(BatchEngine(small_model().cuda(), settings), requests, per_step=3)
    for one, other in zip(plain, got, strict=True):
        assert (one.tokens, one.finish) == (other.tokens, other.finish)
        for a, b in zip(one.events, other.events, strict=True):
            assert (a.logprob is None) == (b.logprob is None)
            assert a.logprob is None or abs(a.logprob - (b.logprob or 0)) < 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_graphs_change_nothing_in_half_precision(family: str) -> None:
    """The same kernels run with and without a recording; batches of other sizes would round otherwise."""
    shape = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, **FAMILIES[family]}
    if family == "deepseek_v3":
        shape["head_dim"] = None
    model = small_model(**shape).to("cuda", torch.bfloat16)
    requests = [Request(p, GREEDY) for p in prompts(8)]
    said = []
    for graphs in (False, True):
        settings = EngineConfig(max_running=8, cuda_graphs=graphs)
        said.append([outcome.tokens for outcome in run_all(BatchEngine(model, settings), requests)])
    assert said[0] == said[1]


def test_cancelling_and_joining_between_recorded_steps_leaks_nothing() -> None:
    engine = BatchEngine(small_model().cuda(), EngineConfig(max_running=40, page_size=4))
    numbers = [engine.add(Request(p, GREEDY)) for p in prompts(60)]
    for step in range(12):
        engine.step()
        engine.cancel(numbers[3 * step])
    drain(engine)
    stats = engine.stats
    assert (stats.running, stats.waiting, stats.free_pages) == (0, 0, stats.total_pages)


def test_graph_sizes_reach_the_most_and_waste_little() -> None:
    for most in (1, 3, 64, 100, 256, 300, 1000):
        sizes = graph_sizes(most)
        assert sizes == sorted(set(sizes)) and sizes[-1] == most
        assert all(b <= 2 * a or b - a <= 128 for a, b in pairwise(sizes))


@pytest.mark.parametrize("family", ["qwen3", "qwen2"])
def test_projections_end_to_end_are_as_exact_as_apart(family: str) -> None:
    """The engine's merged products and fused rotation, against fp32, next to the plain layers in bf16."""
    model = small_model(**{"head_dim": 16, **FAMILIES[family]}).cuda()
    ids = torch.arange(120, device="cuda")[None] * 7 % 300
    with torch.no_grad():
        exact = model(ids).head_output
        model.to(torch.bfloat16)
        apart = model(ids).head_output
        BatchEngine(model, EngineConfig(max_running=1))
        layer: Any = model.model.layers[0]
        x, attention, mlp = model.model.embed_tokens(ids), layer.self_attn, layer.mlp
        assert can_merge(x, attention.q_proj, attention.k_proj, attention.v_proj)
        assert can_merge(x, mlp.gate_proj, mlp.up_proj)
        together = model(ids).head_output
    plain, fused = ((logits - exact).abs().mean().item() for logits in (apart, together))
    assert fused < 1.3 * plain
