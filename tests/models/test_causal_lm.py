"""Our decoder against transformers' classes with the same weights, and what it must never do."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mengya.kernels.experts import reference as grouped_experts
from mengya.models.cache.kv import KVCache
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.planning.sizes import parameter_counts
from tests.helpers.oracle import assert_near, oracle_of
from tests.helpers.packed_row import packed_row
from tests.helpers.random_model import random_model, tiny_config

LENGTHS = (7, 1, 9)  # documents of a packed row; 3 positions of padding fill it to 20


@torch.no_grad()
def test_full_forward_equals_transformers(
    model: CausalLM, oracle: Any, input_ids: torch.Tensor
) -> None:
    ours, theirs = model(input_ids).head_output, oracle(input_ids).logits
    assert theirs.std() > 0.3  # the weights are far from trivial
    assert_near(ours, theirs)


@torch.no_grad()
def test_cached_decode_equals_transformers(
    model: CausalLM, oracle: Any, input_ids: torch.Tensor
) -> None:
    cache = KVCache(model.config.num_hidden_layers, capacity=4)  # grows on the way
    chunks = [6, *[1] * 9, 5]
    ours, past, theirs = [], None, []
    for chunk in input_ids.split(chunks, dim=1):
        ours.append(model.decode(chunk, cache))
        out = oracle(chunk, past_key_values=past, use_cache=True)
        past = out.past_key_values
        theirs.append(out.logits)
    full = oracle(input_ids).logits
    assert_near(torch.cat(ours, 1), torch.cat(theirs, 1))
    assert_near(torch.cat(ours, 1), full)
    assert cache.length == 20


def test_hidden_states_layer_by_layer_are_those_of_forward(
    model: CausalLM, input_ids: torch.Tensor
) -> None:
    with torch.inference_mode():
        expected = model(input_ids, head=lambda hidden, *_: hidden).head_output
    layers = model.hidden_by_layer(input_ids)
    for _ in model.model.layers:
        next(layers)
        assert not torch.is_inference_mode_enabled()  # other work comes between
    with pytest.raises(StopIteration) as ended:
        next(layers)
    assert torch.equal(ended.value.value, expected)


def test_the_model_compiles_into_one_graph() -> None:
    model, input_ids = random_model(tiny_config("Qwen3")), torch.arange(24).reshape(2, 12)
    expected = model(input_ids).head_output
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.equal(compiled(input_ids).head_output, expected)


@torch.no_grad()
def test_a_cropped_cache_forgets(model: CausalLM, input_ids: torch.Tensor) -> None:
    cache = KVCache(model.config.num_hidden_layers)
    model.decode(input_ids.flip(1), cache)
    cache.crop(0)
    model.decode(input_ids[:, :12], cache)
    model.decode(input_ids[:, :5], cache)
    cache.crop(12)
    rest = model.decode(input_ids[:, 12:], cache)
    assert_near(rest, model(input_ids).head_output[:, 12:])
    with pytest.raises(ValueError, match="cannot crop"):
        cache.crop(21)


@torch.no_grad()
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_mqa_and_mha_equal_transformers(kv_heads: int) -> None:
    model = random_model(tiny_config("Qwen3", num_key_value_heads=kv_heads))
    ids = torch.arange(18).view(2, 9)
    assert_near(model(ids).head_output, oracle_of(model)(ids).logits)


@torch.no_grad()
def test_a_token_never_changes_what_came_before(model: CausalLM, input_ids: torch.Tensor) -> None:
    packed = {
        name: t.expand(3, -1) if t.dim() == 2 else t for name, t in packed_row((20,), 20).items()
    }
    before = model(input_ids).head_output
    for t in (0, 4, 19):
        changed = input_ids.clone()
        changed[:, t] = (changed[:, t] + 1) % model.config.vocab_size
        for inputs in ({}, {k: packed[k] for k in ("position_ids", "document_ids")}):
            after = model(changed, **inputs).head_output
            torch.testing.assert_close(after[:, :t], before[:, :t], atol=1e-6, rtol=0)
            assert (after[:, t] - before[:, t]).abs().max() > 1e-3


@torch.no_grad()
def test_packed_documents_equal_the_same_documents_alone(
    model: CausalLM, input_ids: torch.Tensor
) -> None:
    row = input_ids[:1]
    packed = model(row, **packed_row(LENGTHS, 20)).head_output
    assert packed.isfinite().all()  # padding attends to something
    start = 0
    for length in LENGTHS:
        alone = model(row[:, start : start + length]).head_output
        assert_near(packed[:, start : start + length], alone)
        start += length


@torch.no_grad()
def test_packed_documents_never_see_each_other(model: CausalLM, input_ids: torch.Tensor) -> None:
    inputs = packed_row(LENGTHS, 20)
    row = input_ids[:1]
    before = model(row, **inputs).head_output
    changed = row.clone()
    changed[:, :7] = 1  # all of the first document
    changed[:, 17:] = 2  # and the padding
    after = model(changed, **inputs).head_output
    # Experts see other groups of rows, whose products may round differently: not bit-equal there.
    torch.testing.assert_close(after[:, 7:17], before[:, 7:17], atol=1e-5, rtol=0)
    assert (after[:, :7] - before[:, :7]).abs().max() > 1e-3


def test_gradient_checkpointing_changes_no_gradient(
    model: CausalLM, input_ids: torch.Tensor
) -> None:
    model.train()
    gradients = []
    for model.gradient_checkpointing in (False, True):
        output = model(input_ids)
        loss = F.cross_entropy(output.head_output.flatten(0, 1), input_ids.flatten())
        if output.aux_loss_B is not None:
            loss = loss + output.aux_loss_B.sum()
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
        model.zero_grad(set_to_none=True)
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain is not None
        torch.testing.assert_close(plain, recomputed)


def test_a_row_of_padding_alone_gives_no_nan(model: CausalLM, input_ids: torch.Tensor) -> None:
    model.train()
    output = model(input_ids, document_ids=torch.full_like(input_ids, -1))
    total = output.head_output.sum() * 0
    if output.aux_loss_B is not None:
        assert output.aux_loss_B.tolist() == [0, 0, 0]
        total = total + output.aux_loss_B.sum()
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_padding_the_vocabulary_changes_nothing(model: CausalLM, input_ids: torch.Tensor) -> None:
    plain = model(input_ids).head_output
    model.pad_vocabulary = True
    padded = model(input_ids).head_output
    assert padded.shape == plain.shape == (3, 20, 101)
    torch.testing.assert_close(padded, plain)


@torch.no_grad()
def test_positions_choose_what_the_head_sees(model: CausalLM, input_ids: torch.Tensor) -> None:
    full = model(input_ids).head_output
    positions = torch.tensor([59, 3, 20])
    expected = full.flatten(0, 1)[positions][None]
    torch.testing.assert_close(model(input_ids, positions=positions).head_output, expected)
    torch.testing.assert_close(model.decode(input_ids, None, positions=positions), expected)
    hidden = model(input_ids, positions=positions, head=lambda hidden, *_: hidden).head_output
    assert hidden.shape == (1, 3, 48)
    torch.testing.assert_close(model.lm_head(hidden), expected)


def test_parameter_counts_are_those_of_the_model(config: ModelConfig, model: CausalLM) -> None:
    counts = parameter_counts(config)
    assert counts.total == sum(p.numel() for p in model.parameters())
    idle = 0
    if config.num_experts:
        unused = config.num_experts - config.num_experts_per_tok
        idle = config.num_moe_layers * unused * 3 * config.hidden_size * config.expert_width
    assert counts.active == counts.total - idle
    embeddings = {model.model.embed_tokens.weight, model.lm_head.weight}
    assert counts.embedding == sum(p.numel() for p in embeddings)


def test_fresh_weights_are_small_and_repeatable(
    config: ModelConfig, input_ids: torch.Tensor
) -> None:
    torch.manual_seed(5)
    first = CausalLM(config)
    torch.manual_seed(5)
    second = CausalLM(config)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    logits = first(input_ids).head_output
    loss = F.cross_entropy(logits.flatten(0, 1), input_ids.roll(1).flatten())
    assert abs(loss.item() - torch.tensor(101.0).log().item()) < 0.2


def test_neftune_adds_noise_of_its_size_in_training_only(
    model: CausalLM, input_ids: torch.Tensor
) -> None:
    seen: list[torch.Tensor] = []
    model.model.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.neftune_alpha = 5.0
    model(input_ids)
    model.train()
    model(input_ids)
    torch.testing.assert_close(seen[0], model.model.embed_tokens(input_ids))
    noise = (seen[1] - seen[0]).abs().max().item()
    bound = 5.0 / (20 * 48) ** 0.5
    assert 0.9 * bound < noise <= bound * 1.0001


def test_autocast_runs_in_half_precision_without_a_warning(
    model: CausalLM, input_ids: torch.Tensor
) -> None:
    full = model(input_ids, **_documents(input_ids)).head_output
    with warnings.catch_warnings(), torch.autocast("cpu", torch.bfloat16):
        warnings.simplefilter("error")
        output = model.train()(input_ids, **_documents(input_ids))
        output.head_output.float().sum().backward()
    assert output.head_output.dtype == torch.bfloat16
    if output.aux_loss_B is not None:
        assert output.aux_loss_B.dtype == torch.float32
    assert (output.head_output - full).abs().max() < 0.1 * full.abs().max()


def test_a_model_cast_to_bfloat16_decodes(model: CausalLM, input_ids: torch.Tensor) -> None:
    half = model.to(torch.bfloat16)
    cache = KVCache(half.config.num_hidden_layers)
    with torch.no_grad():
        half.decode(input_ids[:, :10], cache)
        logits = half.decode(input_ids[:, 10:11], cache)
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()


def test_no_layer_falls_back_to_eager_for_too_many_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense layers and mixtures, in training, validation and as DPO's reference: nine graphs."""
    eager = partial(torch.compile, backend="eager")  # the graphs, not their kernels
    monkeypatch.setattr(torch, "compile", eager)
    experts = torch.compiler.disable(grouped_experts.looped_product)  # it has graphs of its own
    monkeypatch.setattr(grouped_experts, "looped_product", experts)
    torch._dynamo.reset()
    config = tiny_config("DeepseekV3", num_hidden_layers=4, first_k_dense_replace=2)
    policy, reference = CausalLM(config), CausalLM(config).requires_grad_(False).eval()
    ids = torch.arange(16)[None]
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        policy.compile_layers()
        reference.compile_layers()
        policy(ids).head_output.sum().backward()
        with torch.no_grad():
            reference(ids)
            policy.eval()(ids)


def _documents(input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    numbers = torch.arange(input_ids.shape[1]) // 8
    return {"document_ids": numbers.expand_as(input_ids)}
