"""Each step of sampling against transformers' own, and what is really drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mengya.config import load_config
from mengya.errors import UserError
from mengya.generation.sampling import (
    History,
    RowSettings,
    SamplingParams,
    adjust,
    candidates,
    check_logit_bias,
    choose,
    row_seed,
    uniforms,
)

CPU = torch.device("cpu")


@pytest.fixture
def logits() -> torch.Tensor:
    """[4, 50] fp32."""
    return torch.randn(4, 50, generator=torch.Generator().manual_seed(0)) * 3


def probabilities(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """What may be drawn, back in the order of the vocabulary."""
    rows = RowSettings.of([params] * len(logits))
    ranked = 0 < params.top_k < logits.shape[1] or params.top_p < 1
    columns = torch.from_numpy(rows.of_rows(np.arange(len(logits))))
    found, ids = candidates(logits, columns, ranked)
    return found if ids is None else torch.zeros_like(logits).scatter(1, ids, found)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [0, 1, 7, 50, 1000])
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("min_p", [0.0, 0.02, 0.3, 1.0])
def test_the_distribution_is_transformers(
    logits: torch.Tensor, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    if min_p:
        warpers.append(MinPLogitsWarper(min_p))
    theirs = warpers(torch.LongTensor(4, 0), logits.clone()).softmax(-1)
    ours = probabilities(
        logits, SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    )
    assert torch.equal(ours > 0, theirs > 0)
    torch.testing.assert_close(ours, theirs)


def test_bias_and_repetition_penalty_are_transformers(logits: torch.Tensor) -> None:
    tokens = torch.LongTensor([[1, 2, 2], [3, 4, 5], [0, 49, 7], [9, 9, 9]])
    processors = LogitsProcessorList(
        [
            SequenceBiasLogitsProcessor([[[2], 4.0], [[9], -3.5]]),
            RepetitionPenaltyLogitsProcessor(1.7),
        ]
    )
    theirs = processors(tokens, logits.clone())
    params = SamplingParams(repetition_penalty=1.7, logit_bias={2: 4.0, 9: -3.5})
    # Seen either in the prompt or since: here the first token is the prompt.
    history = History.of(tokens[:, :1].tolist(), 50, CPU)
    for column in tokens[:, 1:].T:
        history.add(column)
    torch.testing.assert_close(adjust(logits, history, RowSettings.of([params] * 4)), theirs)
    without_bias = params.model_copy(update={"logit_bias": {}})
    assert not torch.equal(adjust(logits, history, RowSettings.of([without_bias] * 4)), theirs)


def test_penalties_by_count_are_those_of_the_formula() -> None:
    """Only tokens of the completion count, the prompt's do not."""
    history = History.of([[0, 0, 3]], 5, CPU)
    for token in (1, 2, 2):
        history.add(torch.tensor([token]))
    logits = torch.tensor([[1.0, 1.0, -1.0, 2.0, 0.0]])
    both = SamplingParams(presence_penalty=0.5, frequency_penalty=0.25)
    assert adjust(logits, history, RowSettings.of([both])).tolist() == [[1.0, 0.25, -2.0, 2.0, 0.0]]
    rewarded = SamplingParams(frequency_penalty=-2)
    assert adjust(logits, history, RowSettings.of([rewarded])).tolist() == [
        [1.0, 3.0, 3.0, 2.0, 0.0]
    ]
    # The repetition penalty comes first: 1 / 2 - 0.75, then -1 * 2 - 1.
    after = both.model_copy(update={"repetition_penalty": 2.0})
    assert adjust(logits, history, RowSettings.of([after])).tolist() == [
        [0.5, -0.25, -3.0, 1.0, 0.0]
    ]
    assert adjust(logits, None, RowSettings.of([SamplingParams()])) is logits


def test_a_bias_of_an_unknown_token_is_refused() -> None:
    check_logit_bias(SamplingParams(logit_bias={49: 1.0}), 50)
    with pytest.raises(UserError, match="token 50, the model has tokens 0 to 49"):
        check_logit_bias(SamplingParams(logit_bias={50: 1.0, 3: 1.0}), 50)


def chosen(logits: torch.Tensor, params: SamplingParams, seed: int | None = 0) -> torch.Tensor:
    """One choice for each row: the first, second, ... number of a seed."""
    numbers = uniforms(np.full(len(logits), row_seed(seed), np.uint64), np.arange(len(logits)))
    return choose(logits, None, RowSettings.of([params] * len(logits)), numbers)


def draws(logits_V: torch.Tensor, params: SamplingParams, times: int = 20_000) -> torch.Tensor:
    drawn = chosen(logits_V.expand(times, -1), params)
    return torch.bincount(drawn, minlength=len(logits_V)) / times


def test_a_row_draws_the_same_alone_and_in_company(logits: torch.Tensor) -> None:
    """Its neighbours are greedy, ranked or drawn from all, biased and penalized."""
    settings: list[dict[str, Any]] = [
        {"temperature": 0},
        {"top_p": 1},
        {"top_p": 1, "top_k": 5},
        {"top_p": 0.8},
        {"top_p": 1, "min_p": 0.1},
        {"top_p": 0.9, "top_k": 3, "min_p": 0.01},
        {"top_p": 1, "repetition_penalty": 1.5},
        {"top_p": 1, "presence_penalty": 1, "logit_bias": {3: 2.5}},
    ]
    rows = [SamplingParams.model_validate({"temperature": 1.5, **one}) for one in settings]
    logits = logits.repeat(2, 1)
    history = History.of([[row, 9] for row in range(8)], 50, CPU)
    history.add(torch.arange(8))
    numbers = uniforms(np.arange(8, dtype=np.uint64), np.zeros(8))
    together = choose(logits, history, RowSettings.of(rows), numbers)
    assert len(set(together.tolist())) > 3
    for row, params in enumerate(rows):
        own = history.rows(torch.tensor([row]))
        one = RowSettings.of([params])
        alone = choose(logits[row : row + 1], own, one, numbers[row : row + 1])
        assert alone == together[row]


def test_what_has_no_probability_is_never_drawn() -> None:
    logits = torch.full((2000, 8), float("-inf"))
    logits[:, 3], logits[:, 6] = 0.0, 1.0
    assert set(chosen(logits, SamplingParams(temperature=1, top_p=1)).tolist()) == {3, 6}
    for freezing in (1e-300, 1e-30):
        assert set(chosen(logits, SamplingParams(temperature=freezing, top_p=1)).tolist()) == {6}


def test_uniforms_are_uniform_and_a_function_of_seed_and_step() -> None:
    steps = np.arange(100_000)
    numbers = uniforms(np.full(len(steps), 7, np.uint64), steps)
    assert numbers.dtype == np.float32 and numbers.min() >= 0 and numbers.max() < 1
    counts, _ = np.histogram(numbers, 50, (0, 1))
    assert ((counts - 2000) ** 2 / 2000).sum() < 85.4  # chi-square, 49 degrees, p = 0.001
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.012
    # Neighbouring seeds, as the completions of one request have them, are strangers.
    seeds = uniforms(np.arange(100_000, dtype=np.uint64), np.zeros(100_000))
    assert abs(np.corrcoef(seeds[1:], seeds[:-1])[0, 1]) < 0.012
    assert (uniforms(np.full(3, 7, np.uint64), np.array([5, 0, 99])) == numbers[[5, 0, 99]]).all()


def test_temperature_changes_what_is_drawn() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    for temperature in (0.5, 1.0, 3.0):
        params = SamplingParams(temperature=temperature, top_p=1, seed=0)
        shares = draws(logits, params)
        torch.testing.assert_close(shares, (logits / temperature).softmax(0), atol=0.015, rtol=0)
    assert draws(logits, SamplingParams(temperature=0))[0] == 1


def test_top_k_and_top_p_are_never_left() -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    two = SamplingParams(temperature=1, top_k=2, top_p=1, seed=0)
    assert (draws(logits, two) > 0).tolist() == [True, True, False, False]
    most = SamplingParams(temperature=1, top_p=0.75, seed=0)
    assert (draws(logits, most) > 0).tolist() == [True, True, True, False]
    assert draws(logits, SamplingParams(temperature=1, top_p=0.01, seed=0))[0] == 1


def test_a_seed_repeats_and_no_seed_does_not() -> None:
    flat, params = torch.zeros(200, 50), SamplingParams(temperature=1)

    def drawn(seed: int | None) -> list[int]:
        return chosen(flat, params, seed).tolist()

    assert drawn(3) == drawn(3) != drawn(4)
    assert drawn(None) != drawn(None)


def test_drawing_leaves_the_global_random_state_alone(logits: torch.Tensor) -> None:
    before = torch.get_rng_state()
    for seed in (None, 1):
        chosen(logits, SamplingParams(temperature=1), seed)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "override",
    [
        "temperature=-1",
        "top_k=-1",
        "top_p=0",
        "top_p=1.1",
        "repetition_penalty=0",
        "min_p=1.5",
        "presence_penalty=2.1",
        "frequency_penalty=-3",
        'logit_bias={"-1": 2}',
        'logit_bias={"1": Infinity}',
        "temperature=NaN",
        "seed=18446744073709551616",
        "max_new_tokens=0",
    ],
)
def test_impossible_settings_are_refused(override: str) -> None:
    with pytest.raises(UserError, match=override.split("=")[0]):
        load_config(SamplingParams, None, [override])
