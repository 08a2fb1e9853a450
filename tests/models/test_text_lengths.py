"""Where angles depend on the length of a text, it is its own: no neighbour in the batch changes a number."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mengya.evaluation.likelihood.scoring import sequence_nlls
from mengya.generation.engine import generate
from mengya.generation.sampling import SamplingParams
from mengya.models.causal_lm import CausalLM
from tests.helpers.random_model import FAMILIES, random_model, tiny_config

TRAINED, CONTEXT = 16, 64
ORIGINAL = {"original_max_position_embeddings": TRAINED}
LENGTHS = (40, 7, 20)


@pytest.fixture(params=["dynamic", "longrope", "clex"])
def rope(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {
        "dynamic": {"rope_type": "dynamic", "factor": 4.0},
        "longrope": {"rope_type": "longrope", **ORIGINAL},
        "clex": {"rope_type": "clex", "factor": 4.0, **ORIGINAL},
    }[request.param]


@pytest.fixture(params=["Qwen3", "DeepseekV3"])
def model(request: pytest.FixtureRequest, rope: dict[str, Any]) -> CausalLM:
    assert request.param in FAMILIES
    if rope["rope_type"] == "longrope":
        pairs = tiny_config(request.param).rotary_width // 2
        rope["long_factor"] = [2.0 + i for i in range(pairs)]
        rope["short_factor"] = [1.0 + i / 9 for i in range(pairs)]
    context = TRAINED if rope["rope_type"] == "dynamic" else CONTEXT
    return random_model(
        tiny_config(request.param, rope_parameters=rope, max_position_embeddings=context)
    )


def texts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(101, (n,), generator=generator).tolist() for n in LENGTHS]


def packed(rows: list[list[list[int]]], size: int) -> dict[str, torch.Tensor]:
    inputs = {
        "input_ids": torch.zeros(len(rows), size, dtype=torch.int64),
        "position_ids": torch.zeros(len(rows), size, dtype=torch.int64),
        "document_ids": torch.full((len(rows), size), -1),
    }
    for number, row in enumerate(rows):
        begin = 0
        for document, ids in enumerate(row):
            place = (number, slice(begin, begin + len(ids)))
            inputs["input_ids"][place] = torch.tensor(ids)
            inputs["position_ids"][place] = torch.arange(len(ids))
            inputs["document_ids"][place] = document
            begin += len(ids)
    return inputs


@torch.no_grad()
def test_packed_documents_equal_each_alone(model: CausalLM) -> None:
    long, short, middle = texts()
    logits = model(**packed([[long, short], [middle]], 50)).head_output
    for row, begin, ids in ((0, 0, long), (0, 40, short), (1, 0, middle)):
        alone = model(torch.tensor([ids])).head_output[0]
        found = logits[row, begin : begin + len(ids)]
        torch.testing.assert_close(found, alone, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_scores_equal_each_alone(model: CausalLM) -> None:
    together = sequence_nlls(model, texts())
    for ids, found in zip(texts(), together, strict=True):
        torch.testing.assert_close(found, sequence_nlls(model, [ids])[0], atol=2e-5, rtol=1e-4)


def test_completions_of_several_prompts_equal_each_alone(model: CausalLM) -> None:
    params = SamplingParams(max_new_tokens=8, temperature=0)
    together = generate(model, texts(), params, [])
    assert together == [generate(model, [ids], params, [])[0] for ids in texts()]


def test_gradients_do_not_depend_on_the_micro_batch(model: CausalLM) -> None:
    if model.config.rope_parameters.learned:
        pytest.skip("draws its factor at random in every forward pass of training")
    rows = [[texts()[0]], [texts()[1], texts()[2]]]
    weight = model.get_parameter("model.layers.0.self_attn.o_proj.weight")

    def gradient(groups: list[list[list[list[int]]]]) -> torch.Tensor:
        model.zero_grad()
        for group in groups:
            inputs = packed(group, 48)
            real = inputs["document_ids"] >= 0
            model(**inputs).head_output[real].logsumexp(-1).sum().backward()
        assert weight.grad is not None
        return weight.grad.clone()

    torch.testing.assert_close(
        gradient([rows]), gradient([[r] for r in rows]), atol=1e-4, rtol=1e-3
    )
