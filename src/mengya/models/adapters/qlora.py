"""A frozen base in 4 bits for QLoRA (Dettmers et al. 2023, arXiv:2305.14314), through bitsandbytes.

Takes a `CausalLM` on a GPU and puts 4-bit layers in place of the linear ones, in place; lora.py adds
the adapters. The 4-bit weights are never saved: folders and merging use the full weights only.
"""

from __future__ import annotations

import torch
from torch import nn

from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.runtime.optional import require


def quantize_base(model: CausalLM) -> CausalLM:
    """Every linear layer inside the decoder layers as nf4 with doubly quantized scales, frozen.

    Embedding, output layer, norms, routers and stacked experts stay as they are.

    Raises:
        UserError: the model is not on CUDA, uses latent attention, or bitsandbytes is missing.
    """
    device = model.lm_head.weight.device
    if device.type != "cuda":
        raise UserError(
            f"lora.base_4bit needs a CUDA GPU, this model is on {device.type}, where bitsandbytes' 4-bit "
            "weights are wrong; set lora.base_4bit=false (plain LoRA), or device=cuda"
        )
    if model.config.kv_lora_rank is not None:
        raise UserError(
            "lora.base_4bit: latent attention decodes with its projections' own weights, which 4-bit "
            "layers hide; set lora.base_4bit=false"
        )
    bitsandbytes = require("bitsandbytes", "qlora")
    replace_linears(model, bitsandbytes, device)
    return model


def replace_linears(model: CausalLM, bitsandbytes: object, device: torch.device) -> None:
    """Put bitsandbytes' layers in the places of nn.Linear; PEFT then chooses its 4-bit adapters."""
    layers = getattr(bitsandbytes, "nn")  # noqa: B009 (an optional library has no types here)
    for name, module in list(model.model.layers.named_modules()):
        if type(module) is not nn.Linear:
            continue
        small = layers.Linear4bit(
            module.in_features, module.out_features, bias=module.bias is not None,
            compute_dtype=torch.bfloat16, compress_statistics=True, quant_type="nf4",
        )  # fmt: skip
        small.weight = layers.Params4bit(
            module.weight.detach().cpu(), requires_grad=False, compress_statistics=True, quant_type="nf4"
        )  # fmt: skip
        if module.bias is not None:
            small.bias = nn.Parameter(module.bias.detach().cpu(), requires_grad=False)
        parent, _, child = name.rpartition(".")
        # Moving to the device is what quantizes.
        setattr(model.model.layers.get_submodule(parent), child, small.to(device))
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # PEFT asks the model for it
