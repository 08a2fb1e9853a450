"""The decode loop against transformers' generate(), and its own promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mengya.errors import UserError
from mengya.generation.engine import generate, stream
from mengya.generation.sampling import SamplingParams
from mengya.models.cache.kv import KVCache
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import save_hf_folder
from tests.helpers.random_model import small_model

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [42], [100, 3, 50, 77], [9, 8, 7, 6, 5, 4, 3]]
GREEDY = SamplingParams(max_new_tokens=20, temperature=0)


def without_stops(ids: list[int], stops: set[int]) -> list[int]:
    """Up to the first stop token."""
    return ids[: next((i for i, token in enumerate(ids) if token in stops), len(ids))]


@pytest.mark.parametrize(
    "family",
    [
        {},
        {"qk_norm": False},
        {"qk_norm": False, "attention_bias": True},
        {"num_experts": 4, "moe_intermediate_size": 24},
        {
            "num_experts": 4, "moe_intermediate_size": 24, "n_shared_experts": 1,
            "scoring_func": "sigmoid", "rope_parameters": {"rope_type": "dynamic", "factor": 4},
            "max_position_embeddings": 16,
        },
        {
            "kv_lora_rank": 12, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 14,
            "num_key_value_heads": 4, "qk_norm": False,
        },
    ],
)  # fmt: skip
def test_left_padded_batches_equal_transformers(family: dict[str, Any], tmp_path: Path) -> None:
    model = small_model(**family)
    save_hf_folder(model, model.config, tmp_path, pad_token_id=0)
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    plain = generate(model, PROMPTS, GREEDY, [])
    assert [len(ids) for ids in plain] == [20] * 4
    stops = {plain[0][4], plain[2][9]}  # tokens that really come, at different times
    ours = generate(model, PROMPTS, GREEDY, stops)

    longest = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in PROMPTS])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in PROMPTS])
    out = theirs.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=20,
                          eos_token_id=sorted(stops), pad_token_id=0)  # fmt: skip
    expected = [without_stops(row, stops) for row in out[:, longest:].tolist()]
    assert ours == expected
    assert len({len(row) for row in ours}) > 1
    assert ours == [without_stops(row, stops) for row in plain]


def test_a_prompt_gives_the_same_alone_in_a_batch_and_streamed(model: CausalLM) -> None:
    together = generate(model, PROMPTS, GREEDY, [])
    for prompt, ids in zip(PROMPTS, together, strict=True):
        assert generate(model, [prompt], GREEDY, []) == [ids]
        assert list(stream(model, prompt, GREEDY, [])) == ids
        assert list(stream(model, prompt, GREEDY, {ids[6]})) == without_stops(ids, {ids[6]})


def test_the_repetition_penalty_equals_transformers(model: CausalLM, tmp_path: Path) -> None:
    save_hf_folder(model, model.config, tmp_path, pad_token_id=0)
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    params = SamplingParams(max_new_tokens=30, temperature=0, repetition_penalty=1.4)
    (ours,) = generate(model, [PROMPTS[0]], params, [])
    out = theirs.generate(
        torch.tensor([PROMPTS[0]]), do_sample=False, max_new_tokens=30, repetition_penalty=1.4
    )
    assert ours == out[0, len(PROMPTS[0]) :].tolist()
    assert ours != generate(model, [PROMPTS[0]], GREEDY, [])[0]


def test_bias_and_penalties_by_count_reach_the_loop(model: CausalLM) -> None:
    banned = generate(model, PROMPTS[:1], GREEDY, [])[0][0]
    bias = GREEDY.model_copy(update={"logit_bias": {banned: -100.0}})
    assert banned not in generate(model, PROMPTS[:1], bias, [])[0]
    forced = GREEDY.model_copy(update={"logit_bias": {7: 1e4}})
    assert generate(model, PROMPTS, forced, []) == [[7] * 20] * 4
    never_twice = GREEDY.model_copy(update={"presence_penalty": 2.0, "frequency_penalty": 2.0})
    tame = small_model(hidden_size=16)
    with torch.no_grad():
        for parameter in tame.parameters():
            parameter.mul_(0.1)
    (once,) = generate(tame, PROMPTS[:1], never_twice, [])
    assert len(set(once)) == 20 > len(set(generate(tame, PROMPTS[:1], GREEDY, [])[0]))
    with pytest.raises(UserError, match="logit_bias"):
        generate(model, PROMPTS, GREEDY.model_copy(update={"logit_bias": {300: 1.0}}), [])


def test_sampling_follows_its_seed(model: CausalLM) -> None:
    def sample(seed: int) -> list[list[int]]:
        params = SamplingParams(max_new_tokens=12, temperature=1.5, top_p=1, seed=seed)
        return generate(model, PROMPTS, params, [])

    assert sample(1) == sample(1) != sample(2)
    assert list(stream(model, PROMPTS[0], SamplingParams(temperature=2, seed=5), [])) == list(
        stream(model, PROMPTS[0], SamplingParams(temperature=2, seed=5), [])
    )


def test_a_cache_of_the_beginning_changes_nothing(model: CausalLM) -> None:
    prompt = [*range(10, 40)]
    fresh = list(stream(model, prompt, GREEDY, []))
    cache = KVCache(model.config.num_hidden_layers)
    with torch.no_grad():
        model.eval().decode(torch.tensor([prompt[:21]]), cache)
    assert list(stream(model, prompt, GREEDY, [], cache)) == fresh
    assert cache.length == len(prompt) + 20 - 1  # the last token was chosen, not run


def test_decoding_ends_where_the_context_does(model: CausalLM) -> None:
    params = SamplingParams(max_new_tokens=500, temperature=0)
    assert [len(ids) for ids in generate(model, [[1] * 120, [1]], params, [])] == [8, 8]
    with pytest.raises(UserError, match=r"prompt 1 has 128 tokens.*context is 128"):
        generate(model, [[1], [1] * 128], params, [])
    with pytest.raises(UserError, match="prompt 0 is empty"):
        next(stream(model, [], params, []))
    assert generate(model, [], params, []) == []


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(model: CausalLM, training: bool) -> None:
    model.train(training)
    model.neftune_alpha = 100.0  # would spoil a completion if the model stayed in training mode
    state = torch.get_rng_state()
    expected = generate(model.eval(), PROMPTS, GREEDY, [])
    model.train(training)
    assert generate(model, PROMPTS, GREEDY, []) == expected
    next(stream(model, PROMPTS[0], GREEDY, []))
    assert model.training is training
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
