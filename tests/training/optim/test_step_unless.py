"""A step with gradients that are not finite changes nothing, on the device alone: every optimizer."""

from __future__ import annotations

import pytest
import torch

from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.training.distributed.single import SingleDevice
from mengya.training.execution import Execution
from mengya.training.optim.build import build_optimizers, optimizer_state
from mengya.training.optim.config import OptimizerConfig

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["adamw", "muon", "normuon", "galore"])
def test_a_bad_step_between_good_ones_leaves_no_trace(name: str, device: str) -> None:
    if name == "galore":
        pytest.importorskip("pytorch_optimizer")
    ended = []
    for bad in ((), (0, 2), (1,)):
        torch.manual_seed(0)
        config = ModelConfig(
            vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1,
        )  # fmt: skip
        model = CausalLM(config).to(device)
        strategy = SingleDevice(Execution(torch.device(device)))
        galore = {"rank": 4, "update_every": 2}
        settings = OptimizerConfig.model_validate({"name": name, "lr": 1e-2, "galore": galore})
        optimizers = build_optimizers(model, settings)
        parameters = list(model.parameters())
        good = 0
        for step in range(3 + len(bad)):
            torch.manual_seed(10 + good)
            for p in parameters:
                p.grad = torch.randn_like(p)
            if step in bad:
                grad = parameters[0].grad  # even one number spoils the step
                assert grad is not None
                grad[0, 0] = float("nan") if step else float("inf")
            norm = strategy.step(optimizers, parameters, 1.0)
            assert bool(norm.isfinite()) == (step not in bad)
            good += step not in bad
        state = optimizer_state(optimizers, model)
        ended.append({**dict(model.named_parameters()), **state})
    for other in ended[1:]:
        assert other.keys() == ended[0].keys()
        for key, value in ended[0].items():
            assert torch.equal(value, other[key]), key
