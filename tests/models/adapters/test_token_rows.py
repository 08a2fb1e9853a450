"""Trained rows of tokens against PEFT on transformers' classes: gradients, folders, switching, merging."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from mengya.batch import IGNORE_INDEX
from mengya.errors import UserError
from mengya.kernels.cross_entropy import linear_nll
from mengya.losses.token_nll import token_nll
from mengya.models.adapters.adapter_set import AdapterSet
from mengya.models.adapters.lora import (
    LoraConfig,
    add_lora,
    disable_adapters,
    load_adapter,
    load_merged,
    merge_lora,
    save_adapter,
)
from mengya.models.adapters.token_rows import trained_rows
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import load_causal_lm, save_hf_folder
from tests.helpers.oracle import assert_near, oracle_of
from tests.helpers.random_model import random_model, tiny_config

NEW = [7, 95, 100]
IDS = torch.randint(101, (3, 20), generator=torch.Generator().manual_seed(7))
IDS[:, 3], IDS[:, 9] = 95, 7  # new tokens among the input, several times
ROWS = "trainable_tokens_delta"


@pytest.fixture(params=["Qwen3", "Llama", "Qwen3Moe", "DeepseekV3", "DeepseekV3 dense"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def adapted(model: CausalLM, ids: list[int] = NEW, seed: int = 1, **settings: Any) -> CausalLM:
    """`model` with adapters and rows that change what it says."""
    add_lora(model, LoraConfig(rank=3, alpha=5.0, **settings), ids)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name or ROWS in name:
                parameter.normal_(std=0.2)
    return model


def matrices(model: CausalLM) -> int:
    return 1 if model.config.tie_word_embeddings else 2


@torch.no_grad()
def test_fresh_rows_change_nothing(model: CausalLM) -> None:
    before = model(IDS).head_output
    add_lora(model, LoraConfig(rank=3), NEW)
    assert_near(model(IDS).head_output, before)
    assert trained_rows(model) == len(NEW) * matrices(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(".lora_" in name or ROWS in name for name in trained)


@pytest.mark.parametrize("fused", [False, True])
def test_their_gradient_is_that_of_the_full_matrix(model: CausalLM, fused: bool) -> None:
    labels = IDS.roll(-1, dims=1).masked_fill(IDS % 3 == 0, IGNORE_INDEX)

    def backward(each: CausalLM) -> float:
        if fused:
            output = each(IDS, head=lambda h, w, rows: linear_nll(h, w, labels, 0.01, rows))
            loss = output.head_output[0]
        else:
            logits = each(IDS).head_output
            z = logits.logsumexp(-1)[labels != IGNORE_INDEX]
            loss = token_nll(logits, labels).sum() + 0.01 * z.square().sum()
        loss.backward()
        return float(loss.detach())

    full = random_model(model.config)
    expected = backward(full)
    add_lora(model, LoraConfig(rank=3), NEW)
    assert backward(model) == pytest.approx(expected, rel=1e-5)
    rows = {n: p.grad for n, p in model.named_parameters() if ROWS in n}
    assert len(rows) == matrices(model)
    for name, gradient in rows.items():
        assert gradient is not None and gradient.shape == (len(NEW), 48)
        matrix = full.get_parameter(f"{name.partition('.token_adapter')[0]}.weight")
        assert matrix.grad is not None
        assert_near(gradient, matrix.grad[NEW], 1e-4)
    assert model.lm_head.weight.grad is None and model.model.embed_tokens.weight.grad is None


class _Shapes(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.seen.add(tuple(tensor.shape))
        return made


@pytest.mark.parametrize("tied", [True, False])
def test_no_gradient_of_the_matrix_and_no_copy_of_it_is_made(tied: bool) -> None:
    model = adapted(random_model(tiny_config("Qwen3", tie_word_embeddings=tied)))
    loss = token_nll(model(IDS).head_output, IDS).sum()
    with _Shapes() as shapes:
        loss.backward()
    assert (3, 48) in shapes.seen and (101, 48) not in shapes.seen


@torch.no_grad()
def test_padded_logits_are_the_same(model: CausalLM) -> None:
    expected = adapted(model)(IDS).head_output
    model.pad_vocabulary = True
    assert_near(model(IDS).head_output, expected)


@torch.no_grad()
def test_peft_reads_ours_on_transformers(model: CausalLM, oracle: Any, tmp_path: Path) -> None:
    save_hf_folder(model, model.config, tmp_path / "base")
    before = model(IDS).head_output
    ours = adapted(model)(IDS).head_output
    assert (ours - before)[:, :3].abs().max() > 0.1
    save_adapter(model, tmp_path / "adapter", tmp_path / "base")
    stored = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert sum(ROWS in name for name in stored) == matrices(model)
    theirs = peft.PeftModel.from_pretrained(oracle, tmp_path / "adapter").eval()
    assert_near(theirs(IDS).logits, ours, 2e-5)
    merged = load_merged(tmp_path / "adapter").eval()
    assert_near(merged(IDS).head_output, ours, 5e-5)
    assert_near(theirs.merge_and_unload()(IDS).logits, merged(IDS).head_output, 5e-5)
    bare = load_adapter(load_causal_lm(tmp_path / "base").eval(), tmp_path / "adapter")
    assert torch.equal(bare(IDS).head_output, ours)


@torch.no_grad()
@pytest.mark.parametrize(
    ("tied", "indices"),
    [
        (True, [100, 7]),
        (True, {"embed_tokens": [100, 7]}),
        (True, {"embed_tokens": [100, 7], "lm_head": [100, 7]}),
        (False, [100, 7]),  # PEFT: of the embedding alone
        (False, {"model.embed_tokens": [5, 95], "lm_head": [100]}),
    ],
)
def test_we_read_what_peft_wrote(tied: bool, indices: Any, tmp_path: Path) -> None:
    model = random_model(tiny_config("Qwen3", tie_word_embeddings=tied))
    settings = peft.LoraConfig(
        r=4, target_modules=["q_proj"], init_lora_weights=False, trainable_token_indices=indices
    )
    theirs: Any = peft.get_peft_model(oracle_of(model), settings).eval()
    for name, parameter in theirs.named_parameters():
        if ROWS in name:
            parameter.normal_(std=0.3)
    theirs.save_pretrained(str(tmp_path))
    expected = theirs(IDS).logits
    assert_near(load_adapter(model, tmp_path)(IDS).head_output, expected, 2e-5)
    assert_near(merge_lora(model)(IDS).head_output, expected, 5e-5)


@torch.no_grad()
def test_merged_and_disabled(model: CausalLM) -> None:
    before, names = model(IDS).head_output, list(model.state_dict())
    ours = adapted(model)(IDS).head_output
    with disable_adapters(model):
        assert torch.equal(model(IDS).head_output, before)
    assert torch.equal(model(IDS).head_output, ours)
    merged = merge_lora(model)
    assert_near(merged(IDS).head_output, ours, 5e-5)
    assert list(merged.state_dict()) == names
    assert (merged.lm_head.weight is merged.model.embed_tokens.weight) == (matrices(model) == 1)
    assert type(merged.lm_head) is torch.nn.Linear


@torch.no_grad()
def test_dora_beside_rows(tmp_path: Path) -> None:
    model = random_model(tiny_config("Qwen3"))
    save_hf_folder(model, model.config, tmp_path / "base")
    oracle = oracle_of(model)
    ours = adapted(model, use_dora=True)(IDS).head_output
    save_adapter(model, tmp_path / "adapter", tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(oracle, tmp_path / "adapter").eval()
    assert_near(theirs(IDS).logits, ours, 2e-5)


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
def test_adapters_with_other_rows_and_without_take_turns(tied: bool, tmp_path: Path) -> None:
    config = tiny_config("Qwen3", tie_word_embeddings=tied)
    expected: dict[str | None, torch.Tensor] = {None: random_model(config)(IDS).head_output}
    for seed, (name, ids) in enumerate({"a": [7, 95], "b": [95, 100], "none": []}.items()):
        model = adapted(random_model(config), ids, seed)
        expected[name] = model(IDS).head_output
        save_adapter(model, tmp_path / name, tmp_path)
    served = random_model(config)
    switch = AdapterSet(served, {name: tmp_path / name for name in ("a", "b", "none")})
    for name in (None, "a", "b", "none", "a", None, "b"):
        switch.select(name)
        assert_near(served(IDS).head_output, expected[name])
        assert_near(served.decode(IDS, None), expected[name])


def test_the_output_layer_has_one_kind_of_adapter() -> None:
    with pytest.raises(UserError, match=r"leave lm_head out of lora\.targets"):
        add_lora(random_model(tiny_config("Llama")), LoraConfig(targets=["lm_head"]), NEW)


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_adapter(adapted(random_model(tiny_config("Qwen3"))), tmp_path, tmp_path)
    with pytest.raises(UserError, match=r"row for token 100, this model has the rows 0 to 99"):
        load_adapter(random_model(tiny_config("Qwen3", vocab_size=100)), tmp_path)
    others = add_lora(random_model(tiny_config("Qwen3")), LoraConfig(rank=3, alpha=5.0), [7, 8, 9])
    with pytest.raises(UserError, match=r"rows of other tokens than lora\.trainable_tokens"):
        load_adapter(others, tmp_path)
    file = tmp_path / "adapter_config.json"
    settings = json.loads(file.read_text())
    for indices, reason in (
        ({"embed_tokens": [7], "lm_head": [8]}, "different rows"),
        ({"lm_head": [8]}, "different rows"),
        ({"q_proj": [1]}, "names the layer 'q_proj'"),
    ):
        file.write_text(json.dumps(settings | {"trainable_token_indices": indices}))
        with pytest.raises(UserError, match=reason):
            load_adapter(random_model(tiny_config("Qwen3")), tmp_path)
