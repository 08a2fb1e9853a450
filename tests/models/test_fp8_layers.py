"""Which layers run in fp8, what is refused, and that a model learns with them as without."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from unittest.mock import patch

import pytest
import torch

from mengya.errors import UserError
from mengya.kernels.fp8 import self_check
from mengya.kernels.fp8.swiglu import fp8_swiglu, swiglu_plain
from mengya.losses.token_nll import token_nll
from mengya.models.adapters.lora import LoraConfig, add_lora
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.feed_forward import SwiGLU
from mengya.models.fp8_layers import use_fp8

CPU = torch.device("cpu")


def config(**changes: object) -> ModelConfig:
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}  # fmt: skip
    return ModelConfig.model_validate(shape | changes)


def use_anywhere(model: CausalLM) -> int:
    """use_fp8 by the plain functions; gives the number of layers."""
    use_fp8(model, CPU, reference=True)
    return sum(m.fp8 for m in model.modules() if isinstance(m, SwiGLU))


def test_a_cpu_is_refused() -> None:
    with pytest.raises(UserError, match=r"needs an NVIDIA GPU, and the device is cpu; write prec"):
        use_fp8(CausalLM(config()), CPU)


def test_dense_and_shared_layers_only() -> None:
    assert use_anywhere(CausalLM(config())) == 2
    experts = {"num_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 32}
    with pytest.raises(UserError, match="they are experts, adapted or quantized"):
        use_anywhere(CausalLM(config(**experts)))
    shared = config(**experts, n_shared_experts=1, scoring_func="sigmoid")
    assert use_anywhere(CausalLM(shared)) == 2


def test_adapted_layers_stay_as_they_are() -> None:
    model = CausalLM(config())
    add_lora(model, LoraConfig(rank=2, targets=["gate_proj"]))
    with pytest.raises(UserError, match="adapted"):
        use_anywhere(model)


def test_odd_widths_are_refused() -> None:
    with pytest.raises(UserError, match="widths that 16 divides, and a feed-forward layer has 72"):
        use_anywhere(CausalLM(config(intermediate_size=72)))


def learn(model: CausalLM, steps: int = 60) -> float:
    """The loss in evaluation of a few memorized rows."""
    rows = torch.randint(64, (4, 33), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(steps):
        loss = token_nll(model.train()(rows[:, :-1]).head_output, rows[:, 1:]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return float(token_nll(model.eval()(rows[:, :-1]).head_output, rows[:, 1:]).mean())


def test_a_model_learns_as_in_fp32_and_is_evaluated_in_fp32() -> None:
    torch.manual_seed(0)
    plain, ours = CausalLM(config()), CausalLM(config())
    ours.load_state_dict(plain.state_dict())
    use_anywhere(ours)
    rows = torch.arange(32)[None]
    torch.testing.assert_close(ours.eval()(rows).head_output, plain.eval()(rows).head_output)
    assert not torch.equal(ours.train()(rows).head_output, plain.train()(rows).head_output)
    at_first = learn(plain, steps=0)
    expected, got = learn(plain), learn(ours)
    assert expected < 0.5 * at_first
    assert got == pytest.approx(expected, rel=0.05)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    torch.manual_seed(0)
    model = CausalLM(config()).train()
    use_anywhere(model)
    rows = torch.arange(32)[None]
    gradients = []
    for model.gradient_checkpointing in (False, True):
        model.zero_grad()
        model(rows).head_output.square().mean().backward()
        layer = next(m for m in model.modules() if isinstance(m, SwiGLU))
        gradients.append(layer.up_proj.weight.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_a_compiler_that_gets_a_kernel_wrong_is_found() -> None:
    assert self_check.kernels_are_correct(CPU)

    def wrong(*arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows8, transposed8 = swiglu_plain(*arguments)
        transposed8[3, 64:96] = 1  # as triton-lang/triton#11111 does it: some bytes of one copy
        return rows8, transposed8

    with patch("mengya.kernels.fp8.self_check.swiglu", wrong):
        assert not self_check.kernels_are_correct(CPU)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y: y * 2, "a layer on cpu is off by 100% of its result on the CPU"),
        (lambda y: y * float("nan"), "off by nan%"),
        (lambda y: y @ y, "torch cannot multiply fp8 here: "),
    ],
)
def test_products_that_are_wrong_or_missing_are_found(
    change: Callable[[torch.Tensor], torch.Tensor], said: str
) -> None:
    assert self_check.find_product_fault(CPU) is None
    calls = count()

    def first_changed(*inputs: torch.Tensor) -> torch.Tensor:  # the device's turn is the first
        y = fp8_swiglu(*inputs)
        return y if next(calls) else change(y)

    with patch("mengya.kernels.fp8.self_check.fp8_swiglu", first_changed):
        fault = self_check.find_product_fault(CPU)
    assert fault is not None and re.search(said, fault)


@pytest.mark.parametrize(
    ("capability", "triton", "said"),
    [
        ((8, 0), True, "which A100 does not; write precision=bf16 or precision=auto"),
        ((9, 0), False, "needs Triton, which is not installed here"),
    ],
)
def test_old_cards_and_missing_triton(capability: tuple[int, int], triton: bool, said: str) -> None:
    with (
        patch("torch.cuda.get_device_capability", return_value=capability),
        patch("torch.cuda.get_device_name", return_value="A100"),
        patch("mengya.kernels.fp8.self_check.has_triton", return_value=triton),
        pytest.raises(UserError, match=said),
    ):
        use_fp8(CausalLM(config()), torch.device("cuda", 0))
