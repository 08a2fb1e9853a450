"""A model with the numbers that a GGUF file of it holds, for the proof."""

from __future__ import annotations

import copy

import torch
from gguf import GGMLQuantizationType, quants

from mengya.export.gguf.tensor_types import BY_LLAMA_CPP, TypeName, tensor_type
from mengya.export.gguf.tensors import gguf_name, has_tied_output
from mengya.models.causal_lm import CausalLM


@torch.no_grad()
def rounded_model(model: CausalLM, type_name: TypeName) -> CausalLM | None:
    """A copy with every row rounded as in the file, in fp32.

    None: the numbers are the model's own (F32), llama.cpp chooses them (K-quants), or the file holds others
    than rows of ours (latent attention; an output matrix that is tied here and not there).
    """
    config = model.config
    untied = config.tie_word_embeddings and not has_tied_output(config)
    if type_name == "F32" or type_name in BY_LLAMA_CPP or config.kv_lora_rank is not None or untied:
        return None
    copied = copy.deepcopy(model)
    for name, parameter in copied.named_parameters():
        shape = tuple(parameter.shape)
        kind = tensor_type(gguf_name(name), shape, type_name, has_tied_output(config))
        if kind != GGMLQuantizationType.F32:
            stored = quants.quantize(parameter.numpy(), kind)
            parameter.copy_(torch.from_numpy(quants.dequantize(stored, kind).reshape(shape)))
    return copied
