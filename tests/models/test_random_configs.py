"""What may be trained can be read by us and by transformers, with the same logits; else it is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from pydantic import ValidationError

from mengya.models.config.model import ModelConfig
from mengya.models.config.validation import new_model_problems
from mengya.models.hf.checkpoint import load_causal_lm, save_hf_folder
from mengya.models.hf.config import config_to_hf, load_model_config
from tests.helpers.oracle import assert_near
from tests.helpers.random_model import random_model
from tests.models.random_config import random_values

SEEDS = 300


def accepted(seed: int) -> ModelConfig | None:
    """The configuration of a seed, as far as `mengya pretrain` takes it."""
    try:
        config = ModelConfig(**random_values(seed))
    except ValidationError:
        return None
    return None if any(new_model_problems(config)) else config


ACCEPTED = {seed: config for seed in range(SEEDS) if (config := accepted(seed)) is not None}


@torch.no_grad()
@pytest.mark.parametrize("seed", ACCEPTED)
def test_an_accepted_configuration_is_saved_and_read(seed: int, tmp_path: Path) -> None:
    config = ACCEPTED[seed]
    model = random_model(config)
    ids = torch.randint(config.vocab_size, (2, 24), generator=torch.Generator().manual_seed(seed))
    expected = model(ids).head_output
    save_hf_folder(model, config, tmp_path)
    again = config_to_hf(load_model_config(tmp_path), torch.float32)
    assert again == config_to_hf(config, torch.float32)
    assert torch.equal(load_causal_lm(tmp_path).eval()(ids).head_output, expected)
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert_near(theirs.eval()(ids).logits, expected, tolerance=5e-5)
    short: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert short.eval()(ids).logits.isfinite().all()


def test_the_configurations_are_of_every_kind() -> None:
    classes = Counter(config.model_type for config in ACCEPTED.values())
    assert len(classes) == 7 and min(classes.values()) >= 2
    assert {c.rope_parameters.rope_type for c in ACCEPTED.values()} == {
        "default", "linear", "dynamic", "yarn", "longrope",
    }  # fmt: skip
    odd = [c for c in ACCEPTED.values() if c.hidden_size % c.num_attention_heads]
    assert any(c.head_dim == c.hidden_size // c.num_attention_heads for c in odd)


@pytest.mark.parametrize(
    ("values", "remedies"),
    [
        (
            {"qk_norm": False, "hidden_size": 24, "num_attention_heads": 5, "head_dim": 6},
            {"qk_norm": True},
        ),
        ({"num_experts": 4, "moe_intermediate_size": 12}, {"moe_intermediate_size": 16}),
        ({"num_experts": 4, "hidden_size": 36, "num_attention_heads": 6}, {"hidden_size": 40, "head_dim": 8}),
    ],
)  # fmt: skip
def test_what_nobody_could_read_is_refused_with_a_remedy(
    values: dict[str, Any], remedies: dict[str, Any]
) -> None:
    values = {"num_key_value_heads": 1, **values}

    def refused(values: dict[str, Any]) -> str:
        try:
            return "; ".join(new_model_problems(ModelConfig(**values)))
        except ValidationError as error:
            return str(error)

    name = next(iter(remedies))
    assert f"{name}={str(remedies[name]).lower()}" in refused(values)
    assert not refused(values | remedies)
