"""The batch engine against transformers' generate(), and a request alone against the same in company."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mengya.config import load_config
from mengya.errors import UserError
from mengya.generation.batch.engine import BatchEngine, EngineConfig, EngineFull, Request
from mengya.generation.engine import stream
from mengya.generation.sampling import SamplingParams
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import save_hf_folder
from tests.helpers.engine_batch import GREEDY, LATENT, drain, mixed_requests, prompts, run_all
from tests.helpers.random_model import small_model


def their_tokens(theirs: Any, prompt: tuple[int, ...], **settings: Any) -> list[int]:
    """Twenty tokens of transformers' generate()."""
    ids = torch.tensor([prompt])
    # The mask must be given: token 0 would else be taken for padding.
    out = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20,
        eos_token_id=-1, **settings,
    )  # fmt: skip
    return out[0, len(prompt) :].tolist()


@pytest.mark.parametrize(
    "family",
    [
        {},
        {"qk_norm": False},
        {"qk_norm": False, "attention_bias": True},
        {"num_experts": 4, "moe_intermediate_size": 24},
        LATENT,
    ],
    ids=["qwen3", "llama", "qwen2", "qwen3_moe", "deepseek_v3"],
)
@pytest.mark.parametrize("overlap", [False, True])
def test_many_requests_at_once_equal_transformers(
    family: dict[str, Any], overlap: bool, tmp_path: Path
) -> None:
    model = small_model(**family)
    save_hf_folder(model, model.config, tmp_path, pad_token_id=0)
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    requests = [Request(p, GREEDY) for p in prompts(20)]
    settings = EngineConfig(max_running=9, page_size=4, prefill_chunk=16, overlap=overlap)
    outcomes = run_all(BatchEngine(model, settings), requests, per_step=2)
    for request, outcome in zip(requests, outcomes, strict=True):
        assert outcome.tokens == their_tokens(theirs, request.prompt)
        assert outcome.finish == "length"


def test_the_repetition_penalty_equals_transformers(model: CausalLM, tmp_path: Path) -> None:
    save_hf_folder(model, model.config, tmp_path, pad_token_id=0)
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    params = GREEDY.model_copy(update={"repetition_penalty": 1.4})
    requests = [Request(p, params) for p in prompts(6)]
    for request, outcome in zip(
        requests, run_all(BatchEngine(model, EngineConfig()), requests), strict=True
    ):
        assert outcome.tokens == their_tokens(theirs, request.prompt, repetition_penalty=1.4)


@pytest.mark.parametrize("overlap", [False, True])
def test_alone_equals_in_company(model: CausalLM, overlap: bool) -> None:
    requests = mixed_requests(28)
    settings = EngineConfig(max_running=8, page_size=8, prefill_chunk=24, overlap=overlap)
    engine = BatchEngine(model, settings)
    together = run_all(engine, requests, per_step=3)
    assert {"stop", "length"} == {outcome.finish for outcome in together}
    for request, outcome in zip(requests, together, strict=True):
        (alone,) = run_all(BatchEngine(model, EngineConfig()), [request])
        assert alone.tokens == outcome.tokens
        assert alone.finish == outcome.finish
        for a, b in zip(alone.events, outcome.events, strict=True):
            assert (a.logprob is None) == (b.logprob is None)
            assert a.logprob is None or abs(a.logprob - (b.logprob or 0)) < 1e-4


def test_a_seed_says_the_same_as_the_simple_loop(model: CausalLM) -> None:
    params = SamplingParams(max_new_tokens=15, temperature=1.2, repetition_penalty=1.1, seed=9)
    (outcome,) = run_all(BatchEngine(model, EngineConfig()), [Request((5, 6, 7), params)])
    assert outcome.tokens == list(stream(model, (5, 6, 7), params, []))
    unseeded = [Request((5, 6, 7), params.model_copy(update={"seed": None}))] * 2
    one, other = run_all(BatchEngine(model, EngineConfig()), unseeded)
    assert one.tokens != other.tokens


def test_stop_tokens_and_limits(model: CausalLM) -> None:
    (plain,) = run_all(BatchEngine(model, EngineConfig()), [Request((7,), GREEDY)])
    stop = plain.tokens[8]
    first = plain.tokens.index(stop)
    (stopped,) = run_all(
        BatchEngine(model, EngineConfig()), [Request((7,), GREEDY, frozenset({stop}))]
    )
    assert (stopped.tokens, stopped.finish) == (plain.tokens[:first], "stop")
    assert stopped.events[-1].token is None
    long = GREEDY.model_copy(update={"max_new_tokens": 500})
    (full,) = run_all(BatchEngine(model, EngineConfig()), [Request((1,) * 120, long)])
    assert (len(full.tokens), full.finish) == (8, "length")  # the context is 128
    assert full.events[-1].token is not None


@torch.inference_mode()
@pytest.mark.parametrize("chunk", [3, 512])
def test_logprobs_are_those_of_a_plain_forward(model: CausalLM, chunk: int) -> None:
    sampled = SamplingParams(max_new_tokens=10, temperature=2, seed=1, repetition_penalty=1.5)
    requests = [
        Request(prompts(1)[0], sampled, top_logprobs=4, echo_logprobs=True),
        Request((3, 4, 5, 6), GREEDY, top_logprobs=0),
        Request((3, 4), GREEDY, echo_logprobs=True),
        Request((3,), GREEDY, top_logprobs=2, echo_logprobs=True),
    ]
    engine = BatchEngine(model, EngineConfig(prefill_chunk=chunk, page_size=4))
    for request, outcome in zip(requests, run_all(engine, requests), strict=True):
        ids = [*request.prompt, *outcome.tokens]
        logprobs = model(torch.tensor([ids])).head_output[0].log_softmax(-1)
        start = len(request.prompt)
        for i, event in enumerate(outcome.events):
            expected = logprobs[start + i - 1]
            if request.top_logprobs is None:
                assert (event.logprob, event.top) == (None, ())
                continue
            assert event.logprob == pytest.approx(expected[ids[start + i]].item(), abs=1e-4)
            values, tops = expected.topk(request.top_logprobs)
            assert [token for token, _ in event.top] == tops.tolist()
            assert [p for _, p in event.top] == pytest.approx(values.tolist(), abs=1e-4)
        assert all(event.prompt_logprobs is None for event in outcome.events[1:])
        echoed = outcome.events[0].prompt_logprobs
        if not request.echo_logprobs:
            assert echoed is None
            continue
        assert echoed is not None and len(echoed) == start and echoed[0] is None
        for i, one in enumerate(echoed[1:], 1):
            assert one is not None
            assert one[0] == pytest.approx(logprobs[i - 1, ids[i]].item(), abs=1e-4)
            assert len(one[1]) == (request.top_logprobs or 0)


def test_what_can_never_run_is_refused_and_a_full_line_says_so(model: CausalLM) -> None:
    engine = BatchEngine(model, EngineConfig(max_running=1, max_waiting=2))
    for request, message in [
        (Request((), GREEDY), "the prompt is empty"),
        (Request((1,) * 128, GREEDY), "128 tokens and the context is 128"),
        (Request((300,), GREEDY), "outside 0 to 299"),
        (Request((-1,), GREEDY), "outside 0 to 299"),
        (Request((1,), GREEDY, top_logprobs=301), "top_logprobs=301"),
        (Request((1,), GREEDY, adapter="poet"), "no adapter 'poet'"),
        (Request((1,), SamplingParams(logit_bias={300: 1})), "logit_bias names token 300"),
    ]:
        with pytest.raises(UserError, match=message):
            engine.add(request)
    engine.add(Request((1,), GREEDY))
    engine.step()
    for _ in range(2):
        engine.add(Request((1,), GREEDY))
    with pytest.raises(EngineFull, match="2 requests are waiting"):
        engine.add(Request((1,), GREEDY))
    assert (engine.stats.running, engine.stats.waiting) == (1, 2)
    drain(engine)
    assert engine.add(Request((1,), GREEDY)) == 3


class OnlyEven:
    """A grammar: three even tokens, then the end."""

    failure: str | None = None

    def __init__(self) -> None:
        self.taken: list[int] = []

    @property
    def finished(self) -> bool:
        return len(self.taken) == 3

    def fill(self, allowed_V: torch.Tensor) -> None:
        allowed_V[:] = torch.arange(len(allowed_V)) % 2 == 0

    def accept(self, token: int) -> None:
        self.taken.append(token)


class Nothing(OnlyEven):
    def fill(self, allowed_V: torch.Tensor) -> None:
        allowed_V[:] = False


@pytest.mark.parametrize("overlap", [False, True])
def test_a_grammar_rules_its_own_row_only(model: CausalLM, overlap: bool) -> None:
    grammar = OnlyEven()
    odd = SamplingParams(max_new_tokens=20, temperature=0, logit_bias={5: 50.0, 8: 40.0})
    constrained, free, silent = run_all(
        BatchEngine(model, EngineConfig(overlap=overlap)),
        [
            Request((1, 2), odd, grammar=grammar),
            Request((1, 2), odd),
            Request((1, 2), odd, grammar=Nothing(), top_logprobs=1),
        ],
    )
    assert constrained.tokens == grammar.taken == [8, 8, 8] and constrained.finish == "stop"
    assert free.tokens == [5] * 20
    assert silent.tokens == [] and silent.finish == "stop"


@pytest.mark.parametrize(
    "override",
    [
        "max_running=0", "max_waiting=0", "page_size=0", "cache_tokens=0", "prefill_chunk=0",
        "page_size=2000", "max_running=100000",
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(override: str) -> None:
    with pytest.raises(UserError, match=override.split("=")[0]):
        load_config(EngineConfig, None, [override])


def test_what_cannot_share_a_batch_is_refused_with_the_remedy() -> None:
    dynamic = {"rope_type": "dynamic", "factor": 2}
    with pytest.raises(UserError, match="rope_type=yarn"):
        BatchEngine(small_model(rope_parameters=dynamic), EngineConfig())
