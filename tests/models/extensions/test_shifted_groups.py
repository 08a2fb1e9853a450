"""Shifted sparse attention: what it sees and what it must not, in training only."""

from __future__ import annotations

import pytest
import torch

from mengya.errors import UserError
from mengya.kernels.attention.dense import DensePattern
from mengya.models.attention_mask import plan_attention
from mengya.models.causal_lm import CausalLM
from mengya.models.extensions.shifted_groups import (
    HeadHalves,
    ShiftedGroups,
    group_boundaries,
    shifted_groups,
)
from tests.helpers.oracle import assert_near
from tests.helpers.packed_row import packed_row
from tests.helpers.random_model import random_model, tiny_config

G, S = 8, 32  # the paper's ratio of a quarter
LENGTHS = (19, 3, 8)  # a document of several groups, one within a group, one of exactly a group


@pytest.fixture(params=["Qwen3", "Qwen2", "Qwen3Moe", "DeepseekV3"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def sparse(family: str) -> CausalLM:
    model = random_model(tiny_config(family, router_aux_loss_coef=None)).train()
    model.training_pattern = ShiftedGroups(model.config, G / S)
    return model


@pytest.fixture
def row() -> torch.Tensor:
    return torch.randint(101, (1, S), generator=torch.Generator().manual_seed(3))


def seen_by(position: int, shift: int) -> set[int]:
    """Positions that one half of the heads sees in a row of one document."""
    return {j for j in range(position + 1) if (j + shift) // G == (position + shift) // G}


def test_each_half_of_the_heads_sees_its_own_groups() -> None:
    config = tiny_config("Llama")
    ids = torch.zeros(1, S, dtype=torch.int64)
    groups = ShiftedGroups(config, G / S)
    plan = plan_attention(config, ids, None, None, None, torch.float32, make_pattern=groups)
    assert isinstance(plan.full, HeadHalves)
    for half, shift in ((plan.full.first, 0), (plan.full.second, G // 2)):
        assert isinstance(half, DensePattern) and half.mask is not None
        for position in range(S):
            visible = set((half.mask[0, 0, position] == 0).nonzero().flatten().tolist())
            assert visible == seen_by(position, shift), (position, shift)


@torch.no_grad()
def test_a_token_reaches_what_its_groups_allow_and_nothing_else(row: torch.Tensor) -> None:
    """Influence of one layer is its two halves'; of two layers theirs of theirs: not the row's start."""
    for layers in (1, 2):
        model = random_model(tiny_config("Llama", num_hidden_layers=layers)).train()
        model.training_pattern = ShiftedGroups(model.config, G / S)
        before = model(row).head_output
        reach = {t: {t} for t in range(S)}
        for _ in range(layers):
            reach = {
                t: {k for j in seen_by(t, 0) | seen_by(t, G // 2) for k in reach[j]} for t in reach
            }
        for changed in (0, 3, 9, 20, S - 1):
            other = row.clone()
            other[0, changed] = (row[0, changed] + 1) % 101
            moved = (model(other).head_output - before).abs().amax(-1)[0] > 1e-6
            assert set(moved.nonzero().flatten().tolist()) == {
                t for t in range(S) if changed in reach[t]
            }


@torch.no_grad()
def test_causal(sparse: CausalLM, row: torch.Tensor) -> None:
    before = sparse(row).head_output
    for t in (0, G // 2, G, S - 1):
        other = row.clone()
        other[:, t] = (other[:, t] + 1) % 101
        after = sparse(other).head_output
        torch.testing.assert_close(after[:, :t], before[:, :t], atol=1e-5, rtol=0)
        assert (after[:, t] - before[:, t]).abs().max() > 1e-3


@torch.no_grad()
def test_packed_documents_are_those_alone(sparse: CausalLM, row: torch.Tensor) -> None:
    inputs = packed_row(LENGTHS, S)
    packed = sparse(row, **inputs).head_output
    start = 0
    for length in LENGTHS:
        # the same groups
        sparse.training_pattern = ShiftedGroups(sparse.config, min(G / length, 1))
        alone = sparse(row[:, start : start + length]).head_output
        assert_near(packed[:, start : start + length], alone)
        start += length
    sparse.training_pattern = ShiftedGroups(sparse.config, G / S)
    changed = row.clone()
    changed[:, : LENGTHS[0]] = 1
    torch.testing.assert_close(
        sparse(changed, **inputs).head_output[:, LENGTHS[0] :],
        packed[:, LENGTHS[0] :],
        atol=1e-5,
        rtol=0,
    )
    sparse.training_pattern = None
    full = sparse(row, **inputs).head_output
    difference = (packed - full).abs().amax(-1)[0]
    assert difference[: LENGTHS[0]].max() > 1e-3
    # Documents that fit into a group are not cut at all.
    assert difference[LENGTHS[0] : sum(LENGTHS)].max() < 1e-5


@torch.no_grad()
def test_one_group_is_plain_attention(sparse: CausalLM, row: torch.Tensor) -> None:
    sparse.training_pattern = ShiftedGroups(sparse.config, 1.0)
    grouped = sparse(row).head_output
    sparse.training_pattern = None
    assert_near(grouped, sparse(row).head_output)


@torch.no_grad()
def test_off_in_evaluation(sparse: CausalLM, row: torch.Tensor) -> None:
    in_training = sparse(row).head_output
    off = sparse.eval()(row).head_output
    sparse.training_pattern = None
    assert torch.equal(off, sparse(row).head_output)
    assert (in_training - off).abs().max() > 1e-3


def test_boundaries_say_what_the_numbers_say() -> None:
    """What the varlen kernel reads: every group a document of its own, then empty ones."""
    inputs = packed_row(LENGTHS, S)
    both = {name: torch.cat((t, t)) for name, t in inputs.items() if t.dim() == 2}
    ends = torch.cat((inputs["cu_seqlens"], inputs["cu_seqlens"][1:] + S))
    for groups in shifted_groups(both["position_ids"], both["document_ids"], G):
        found = group_boundaries(groups, ends, G)
        assert found.dtype == torch.int32 and found[0] == 0 and found[-1] == 2 * S
        numbers = (torch.arange(2 * S)[:, None] >= found[None]).sum(1).view(2, S)
        same = numbers[:, :, None] == numbers[:, None, :]
        assert torch.equal(same, groups[:, :, None] == groups[:, None, :])
        assert numbers[0, -1] != numbers[1, 0]  # rows end groups


def test_heads_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(UserError, match="num_key_value_heads=1 is odd"):
        ShiftedGroups(tiny_config("Qwen3", num_key_value_heads=1), 0.25)
    with pytest.raises(UserError, match="two sparse attentions"):
        ShiftedGroups(tiny_config("Qwen3", sliding_window=8), 0.25)
