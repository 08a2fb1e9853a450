"""Each step of sampling against transformers' own, and what is really drawn."""

from __future__ import annotations

import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mengya.config import UserError, load_config
from mengya.generation.sampling import (
    SamplingParams,
    candidates,
    choose,
    new_generator,
    penalize,
)


@pytest.fixture
def logits() -> torch.Tensor:
    """[4, 50] fp32."""
    return torch.randn(4, 50, generator=torch.Generator().manual_seed(0)) * 3


def probabilities(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """What may be drawn, back in the order of the vocabulary."""
    ranked, ids = candidates(logits, params)
    return torch.zeros_like(logits).scatter(1, ids, ranked)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [0, 1, 7, 50, 1000])
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 1.0])
def test_the_distribution_is_transformers(
    logits: torch.Tensor, temperature: float, top_k: int, top_p: float
) -> None:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    theirs = warpers(torch.LongTensor(4, 0), logits.clone()).softmax(-1)
    ours = probabilities(logits, SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p))
    assert torch.equal(ours > 0, theirs > 0)
    torch.testing.assert_close(ours, theirs)


def test_the_repetition_penalty_is_transformers(logits: torch.Tensor) -> None:
    tokens = torch.LongTensor([[1, 2, 2], [3, 4, 5], [0, 49, 7], [9, 9, 9]])
    seen = torch.zeros(4, 50, dtype=torch.bool).scatter(1, tokens, True)
    theirs = RepetitionPenaltyLogitsProcessor(1.7)(tokens, logits.clone())
    torch.testing.assert_close(penalize(logits, seen, 1.7), theirs)
    assert not torch.equal(theirs, logits)


def draws(logits_V: torch.Tensor, params: SamplingParams, times: int = 20_000) -> torch.Tensor:
    generator = new_generator(params.seed, logits_V.device)
    drawn = choose(logits_V.expand(times, -1), None, params, generator)
    return torch.bincount(drawn, minlength=len(logits_V)) / times


def test_temperature_changes_what_is_drawn() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    for temperature in (0.5, 1.0, 3.0):
        params = SamplingParams(temperature=temperature, top_p=1, seed=0)
        shares = draws(logits, params)
        torch.testing.assert_close(shares, (logits / temperature).softmax(0), atol=0.015, rtol=0)
    assert draws(logits, SamplingParams(temperature=0))[0] == 1


def test_top_k_and_top_p_are_never_left() -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    assert (draws(logits, SamplingParams(temperature=1, top_k=2, top_p=1, seed=0)) > 0).tolist() == [True, True, False, False]  # fmt: skip
    assert (draws(logits, SamplingParams(temperature=1, top_p=0.75, seed=0)) > 0).tolist() == [True, True, True, False]  # fmt: skip
    assert draws(logits, SamplingParams(temperature=1, top_p=0.01, seed=0))[0] == 1


def test_a_seed_repeats_and_no_seed_does_not(logits: torch.Tensor) -> None:
    flat = torch.zeros(200, 50)

    def drawn(seed: int | None) -> list[int]:
        generator = new_generator(seed, flat.device)
        return choose(flat, None, SamplingParams(temperature=1, seed=seed), generator).tolist()

    assert drawn(3) == drawn(3) != drawn(4)
    assert drawn(None) != drawn(None)


def test_drawing_leaves_the_global_random_state_alone(logits: torch.Tensor) -> None:
    before = torch.get_rng_state()
    for seed in (None, 1):
        params = SamplingParams(temperature=1, seed=seed)
        choose(logits, None, params, new_generator(seed, logits.device))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "override",
    [
        "temperature=-1",
        "top_k=-1",
        "top_p=0",
        "top_p=1.1",
        "repetition_penalty=0",
        "max_new_tokens=0",
    ],
)
def test_impossible_settings_are_refused(override: str) -> None:
    with pytest.raises(UserError, match=override.split("=")[0]):
        load_config(SamplingParams, None, [override])
