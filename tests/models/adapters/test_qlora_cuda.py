"""On a GPU with bitsandbytes: a 4-bit base computes nearly the same, trains its adapters and saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mengya.errors import UserError
from mengya.models.adapters.lora import (
    LoraConfig,
    add_lora,
    load_adapter,
    load_merged,
    save_adapter,
)
from mengya.models.hf.checkpoint import load_causal_lm, save_hf_folder
from tests.helpers.random_model import random_model, tiny_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
WIDE: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
TOKENS = [7, 95]  # whose rows are trained too
IDS = torch.randint(101, (4, 32), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("family", ["Qwen3", "Qwen2", "Qwen3Moe"])
def test_a_4bit_base_trains_adapters_that_merge_into_the_full_one(
    family: str, use_dora: bool, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    settings = LoraConfig(rank=8, base_4bit=True, use_dora=use_dora, targets=["q_proj", "o_proj"])
    source = random_model(tiny_config(family, **WIDE))
    save_hf_folder(source, source.config, tmp_path / "base")
    model = load_causal_lm(tmp_path / "base", device="cuda")
    ids = IDS.cuda()
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        exact = model(ids).head_output.float()
    bytes_before = sum(p.numel() * p.element_size() for p in model.parameters())
    add_lora(model, settings, TOKENS)
    bytes_after = sum(p.numel() * p.element_size() for p in model.parameters())
    assert bytes_after < bytes_before * (0.9 if family == "Qwen3Moe" else 0.5)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for step in range(20):
        with torch.autocast("cuda", torch.bfloat16):
            logits = model(ids).head_output.float()
        if step == 0:
            assert (logits - exact).norm() < 0.7 * exact.norm()
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    save_adapter(model, tmp_path / "adapter", tmp_path / "base")
    merged = load_merged(tmp_path / "adapter")
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in merged.parameters())
    again = load_causal_lm(tmp_path / "base", device="cuda")
    load_adapter(add_lora(again, settings, TOKENS), tmp_path / "adapter")
    assert not torch.equal(
        merged.model.embed_tokens.weight[TOKENS], source.model.embed_tokens.weight[TOKENS]
    )
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        torch.testing.assert_close(again(ids).head_output, model(ids).head_output)


def test_latent_attention_is_refused() -> None:
    model = random_model(tiny_config("DeepseekV3 dense")).cuda()
    with pytest.raises(UserError, match="latent attention"):
        add_lora(model, LoraConfig(base_4bit=True))
