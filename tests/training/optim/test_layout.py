"""What a run expects of its optimizers is what they keep, and every difference is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.training.checkpoint.tensor_files import Part, Stored, write_part
from mengya.training.optim.build import build_optimizers, optimizer_state
from mengya.training.optim.config import GaLoreConfig, OptimizerConfig
from mengya.training.optim.layout import FILE, OptimizerLayout, read_layout, run_layout

NAMES = ["adamw", "muon", "normuon", "galore"]
MOE: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 3, "num_experts_per_tok": 2,
    "moe_intermediate_size": 20, "first_k_dense_replace": 1, "n_shared_experts": 1,
    "scoring_func": "sigmoid",
}  # fmt: skip


def trained(name: str, folder: Path, rank: int = 5) -> OptimizerLayout:
    """The layout of a run of one step, whose state is written to `folder`."""
    torch.manual_seed(0)
    model = CausalLM(ModelConfig(**MOE))
    config = OptimizerConfig.model_validate({"name": name, "galore": GaLoreConfig(rank=rank)})
    optimizers = build_optimizers(model, config)
    layout = run_layout(optimizers, model, config)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    for optimizer in optimizers:
        optimizer.step()
    state = {n: t.contiguous() for n, t in optimizer_state(optimizers, model).items()}
    folder.mkdir(exist_ok=True)
    write_part(folder, "optimizer", Part(state))
    return layout


@pytest.mark.parametrize("rank", [1, 5, 16, 128])
@pytest.mark.parametrize("name", NAMES)
def test_expected_state_is_the_state_that_optimizers_keep(
    name: str, rank: int, tmp_path: Path
) -> None:
    """Dense layers and stacked experts, matrices of either long side, ranks above the shorter."""
    expected = trained(name, tmp_path, rank)
    assert read_layout(tmp_path) == expected  # from the tensors alone, as of an earlier version
    expected.write(tmp_path)
    assert read_layout(tmp_path) == expected
    expected.check(tmp_path, new_run="")
    kinds = set(expected.kinds.values())
    assert kinds == ({"adamw", name} if name != "adamw" else {"adamw"})


def stored(*shape: int, dtype: torch.dtype = torch.float32) -> Stored:
    return Stored(torch.Size(shape), dtype)


def adamw(*shape: int, **more: Stored) -> dict[str, Stored]:
    return {"step": stored(), "exp_avg": stored(*shape), "exp_avg_sq": stored(*shape), **more}


NORM, MATRIX = "model.norm.weight", "model.layers.0.mlp.down_proj.weight"
DIFFERENCES: dict[str, tuple[Any, str]] = {
    "name": (
        lambda run: replace(run, name="adamw"),
        r"was trained with optimizer\.name=galore, this run says adamw; write optimizer\.name=galore",
    ),
    "missing": (
        lambda run: replace(run, states={**run.states, "new.weight": adamw(3)}),
        "has no optimizer state of new.weight, which this run trains",
    ),
    "extra": (
        lambda run: replace(run, states={n: s for n, s in run.states.items() if n != NORM}),
        f"has optimizer state of {NORM}, which this run does not train",
    ),
    "kind": (
        lambda run: replace(run, kinds={**run.kinds, MATRIX: "adamw"}),
        f"has {MATRIX} updated by galore, in this run by adamw",
    ),
    "keys": (
        lambda run: replace(run, states={**run.states, NORM: adamw(16, max_exp_avg_sq=stored(16))}),
        f"has the state exp_avg, exp_avg_sq, step of {NORM}, adamw keeps .* max_exp_avg_sq, step",
    ),
    "shape": (
        lambda run: replace(run, states={**run.states, NORM: adamw(18)}),
        rf"has {NORM} in the shape \[16\], this run in \[18\]",
    ),
    "shape of a projected matrix": (
        lambda run: replace(
            run, states={**run.states, MATRIX: adamw(5, 32, subspace=stored(16, 5))}
        ),
        rf"has {MATRIX} in the shape \[16, 24\], this run in \[16, 32\]",
    ),
    "dtype": (
        lambda run: replace(
            run, states={**run.states, NORM: adamw(16, exp_avg=stored(16, dtype=torch.bfloat16))}
        ),
        rf"has {NORM}\.exp_avg in torch\.float32, this run in torch\.bfloat16",
    ),
}  # fmt: skip


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("case", DIFFERENCES)
def test_the_difference_is_named_with_both_remedies(
    case: str, record: bool, tmp_path: Path
) -> None:
    change, said = DIFFERENCES[case]
    layout = trained("galore", tmp_path)
    if record:
        layout.write(tmp_path)
    with pytest.raises(UserError, match=f"{said}.*, or start a new run .*: init_from=HERE"):
        change(layout).check(tmp_path, new_run="init_from=HERE")


def test_another_rank_is_named_as_the_setting(tmp_path: Path) -> None:
    trained("galore", tmp_path / "five").write(tmp_path / "five")
    eight = trained("galore", tmp_path / "eight", rank=8)
    with pytest.raises(UserError, match=r"rank 5, .* of 8; write optimizer\.galore\.rank=5 to"):
        eight.check(tmp_path / "five", "")


def test_steps_may_have_any_dtype(tmp_path: Path) -> None:
    """ZeRO counts them as it likes."""
    layout = trained("adamw", tmp_path)
    states = {**layout.states, NORM: adamw(16, step=stored(dtype=torch.int64))}
    replace(layout, states=states).check(tmp_path, "")


def test_an_optimizer_of_a_newer_version_is_no_remedy(tmp_path: Path) -> None:
    layout = trained("adamw", tmp_path)
    replace(layout, name="shampoo").write(tmp_path)
    with pytest.raises(UserError, match=r"name=shampoo, .*; resume with the version of mengya"):
        layout.check(tmp_path, "")


def test_a_record_that_cannot_be_read_names_the_file(tmp_path: Path) -> None:
    layout = trained("adamw", tmp_path)
    for text in ("{", "[]", '{"name": "adamw"}'):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(UserError, match=r"optimizer\.json cannot be read"):
            layout.check(tmp_path, "")
