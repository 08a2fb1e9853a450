"""Reading and writing the standard checkpoint folder: model, tokenizer and generation settings together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import load_causal_lm, save_hf_folder
from mengya.tokenizer.load import copy_tokenizer, document_token_id, stop_token_ids


def write_folder(
    model: CausalLM,
    tokenizer: PreTrainedTokenizerFast,
    tokenizer_folder: Path,
    dtype: torch.dtype,
    directory: Path,
    tensors: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write config, weights, generation settings and tokenizer: all that transformers needs.

    Args:
        tensors: a copy of the model's state dict to write, taken earlier; None takes its own.
    """
    pad = tokenizer.pad_token_id
    save_hf_folder(
        model if tensors is None else tensors,
        model.config,
        directory,
        dtype,
        bos_token_id=document_token_id(tokenizer),
        eos_token_id=stop_token_ids(tokenizer),
        pad_token_id=pad if isinstance(pad, int) else None,
    )
    copy_tokenizer(tokenizer_folder, directory)


def load_weights(model: CausalLM, directory: Path, master: dict[str, torch.Tensor] | None) -> None:
    """Bring a checkpoint of the same shape into `model`: fp32 master weights where it has them."""
    stored = load_causal_lm(directory, device="cpu").state_dict()
    stored.update(master or {})
    if model.config.tie_word_embeddings:
        stored["lm_head.weight"] = stored["model.embed_tokens.weight"]
    model.load_state_dict(stored)


def check_vocabulary(model: CausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuse a tokenizer whose ids the model has no rows for."""
    if len(tokenizer) > model.config.vocab_size:
        raise UserError(
            f"the tokenizer has {len(tokenizer)} ids, the model {model.config.vocab_size} rows; "
            f"write model.vocab_size={len(tokenizer)} (or more), or name the model's own tokenizer"
        )
