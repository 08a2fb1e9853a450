"""Each step of sampling against transformers' own, and what is really drawn."""

from __future__ import annotations

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

from mengya.config import UserError, load_config
from mengya.generation.sampling import (
    History,
    SamplingParams,
    adjust,
    candidates,
    check_logit_bias,
    choose,
    new_generator,
)

CPU = torch.device("cpu")


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
    torch.testing.assert_close(adjust(logits, history, params), theirs)
    without_bias = params.model_copy(update={"logit_bias": {}})
    assert not torch.equal(adjust(logits, history, without_bias), theirs)


def test_penalties_by_count_are_those_of_the_formula() -> None:
    """Only tokens of the completion count, the prompt's do not."""
    history = History.of([[0, 0, 3]], 5, CPU)
    for token in (1, 2, 2):
        history.add(torch.tensor([token]))
    logits = torch.tensor([[1.0, 1.0, -1.0, 2.0, 0.0]])
    both = SamplingParams(presence_penalty=0.5, frequency_penalty=0.25)
    assert adjust(logits, history, both).tolist() == [[1.0, 0.25, -2.0, 2.0, 0.0]]
    rewarded = SamplingParams(frequency_penalty=-2)
    assert adjust(logits, history, rewarded).tolist() == [[1.0, 3.0, 3.0, 2.0, 0.0]]
    # The repetition penalty comes first: 1 / 2 - 0.75, then -1 * 2 - 1.
    after = both.model_copy(update={"repetition_penalty": 2.0})
    assert adjust(logits, history, after).tolist() == [[0.5, -0.25, -3.0, 1.0, 0.0]]
    assert adjust(logits, None, SamplingParams()) is logits


def test_a_bias_of_an_unknown_token_is_refused() -> None:
    check_logit_bias(SamplingParams(logit_bias={49: 1.0}), 50)
    with pytest.raises(UserError, match="token 50, the model has tokens 0 to 49"):
        check_logit_bias(SamplingParams(logit_bias={50: 1.0, 3: 1.0}), 50)


def draws(logits_V: torch.Tensor, params: SamplingParams, times: int = 20_000) -> torch.Tensor:
    generators = [new_generator(params.seed)] * times
    drawn = choose(logits_V.expand(times, -1), None, params, generators)
    return torch.bincount(drawn, minlength=len(logits_V)) / times


@pytest.mark.parametrize("filters", [{}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}])
def test_a_row_draws_the_same_alone_and_in_company(
    logits: torch.Tensor, filters: dict[str, float]
) -> None:
    params = SamplingParams.model_validate({"temperature": 1.5, "top_p": 1, **filters})
    together = choose(logits, None, params, [new_generator(seed) for seed in range(4)])
    for row in range(4):
        alone = choose(logits[row : row + 1], None, params, [new_generator(row)])
        assert alone == together[row]


def test_what_has_no_probability_is_never_drawn() -> None:
    logits = torch.full((2000, 8), float("-inf"))
    logits[:, 3], logits[:, 6] = 0.0, 1.0
    params = SamplingParams(temperature=1, top_p=1)
    drawn = choose(logits, None, params, [new_generator(0)] * 2000)
    assert set(drawn.tolist()) == {3, 6}
    freezing = SamplingParams(temperature=1e-300, top_p=1)
    assert set(choose(logits, None, freezing, [new_generator(0)] * 2000).tolist()) == {6}


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
        generators = [new_generator(seed)] * 200
        return choose(flat, None, SamplingParams(temperature=1), generators).tolist()

    assert drawn(3) == drawn(3) != drawn(4)
    assert drawn(None) != drawn(None)


def test_drawing_leaves_the_global_random_state_alone(logits: torch.Tensor) -> None:
    before = torch.get_rng_state()
    for seed in (None, 1):
        params = SamplingParams(temperature=1, seed=seed)
        choose(logits, None, params, [new_generator(seed)] * 4)
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
