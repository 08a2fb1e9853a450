"""Packed layers compute what plain ones do, share their parameters and leave the model as it was."""

from __future__ import annotations

import pytest
import torch

from mengya.kernels.packed_linear import PackedLinear, pack_linears, packing_runs
from mengya.models.causal_lm import CausalLM
from tests.models.conftest import assert_near


@torch.inference_mode()
def test_a_packed_model_computes_the_same(model: CausalLM, input_ids: torch.Tensor) -> None:
    if not packing_runs(model):
        pytest.skip("this PyTorch has no oneDNN")
    packed = pack_linears(model)
    for rows in (1, 3):
        expected = model(input_ids[:rows]).logits
        assert_near(packed(input_ids[:rows]).logits, expected, 3e-5)
    assert type(model.lm_head) is torch.nn.Linear
    assert isinstance(packed.lm_head, PackedLinear)
    ours, theirs = dict(model.named_parameters()), dict(packed.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(theirs[name] is parameter for name, parameter in ours.items())


def test_packing_is_for_fp32_on_a_cpu(model: CausalLM) -> None:
    assert not packing_runs(model.to(torch.bfloat16))
