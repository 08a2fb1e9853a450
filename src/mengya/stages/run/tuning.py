"""What sft and dpo have in common: they start from a folder and train all of it, or LoRA adapters."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.generation.engine import generate
from mengya.generation.sampling import SamplingParams
from mengya.generation.text_completion import Start, completion_pieces
from mengya.models.adapters.lora import LoraConfig, add_lora, load_adapter, save_adapter
from mengya.models.adapters.trainable_tokens import find_ids
from mengya.models.causal_lm import CausalLM
from mengya.models.config.quantization import TrainedQuantization
from mengya.models.hf.checkpoint import (
    check_vocabulary,
    load_causal_lm,
    load_weights,
    weights_sha256,
    write_folder,
)
from mengya.models.hf.config import load_model_config
from mengya.models.hf.open_checkpoint import ADAPTER
from mengya.stages.run.assemble import TrainedModel, trainable
from mengya.tokenizer.chat_template import encode_prompt
from mengya.tokenizer.load import copy_tokenizer, load_tokenizer, stop_token_ids
from mengya.training.checkpoint.tensor_files import read_tensors
from mengya.training.distributed.strategy import Strategy
from mengya.training.run_config import RunConfig


class TuneConfig(RunConfig):
    init_from: Path
    """Checkpoint or run folder (its best, else latest, checkpoint) to start from."""
    lora: LoraConfig | None = None
    """Train low-rank adapters instead of all weights; null trains all."""

    @property
    def uses_base(self) -> bool:
        """As `RunConfig.uses_base`: adapters are trained on the base."""
        return self.lora is not None


def open_tuned(
    config: TuneConfig, strategy: Strategy, quantization: TrainedQuantization | None = None
) -> tuple[TrainedModel, PreTrainedTokenizerFast]:
    """The model of `init_from`, with adapters when asked for, and how to write and restore it.

    Args:
        quantization: what its weights are rounded to; None: as the folder has it.
    """
    folder = config.init_from
    if (folder / ADAPTER).is_file():
        raise UserError(
            f"{folder} is a LoRA adapter; merge it first: mengya merge {folder} out=FOLDER"
        )
    tokenizer = load_tokenizer(folder)
    shape = load_model_config(folder).quantized(quantization)
    model = load_causal_lm(folder, device=strategy.init_device, config=shape)
    check_vocabulary(model, tokenizer)
    if config.lora is None:
        write = partial(write_folder, model, tokenizer, folder, getattr(torch, config.save_dtype))
        return TrainedModel(
            model,
            folder,
            model.state_dict,
            write,
            lambda model, path: load_weights(model, path, read_tensors(path, "master")),
        ), tokenizer
    add_lora(model, config.lora, find_ids(config.lora, folder, tokenizer, model.config.vocab_size))
    base_sha256 = weights_sha256(folder) if strategy.rank == 0 else None  # rank 0 writes

    def write_adapter(directory: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        save_adapter(model, directory, folder.resolve(), tensors, base_sha256)
        copy_tokenizer(folder, directory)

    return TrainedModel(
        model,
        folder,
        partial(trainable, model),
        write_adapter,
        load_adapter,
    ), tokenizer


def sample_replies(
    config: TuneConfig, tokenizer: PreTrainedTokenizerFast, model: CausalLM
) -> list[dict[str, Any]]:
    """Greedy replies to the fixed prompts, each as the first message of a conversation."""
    prompts = [
        encode_prompt(tokenizer, [{"role": "user", "content": text}])
        for text in config.sample_prompts
    ]
    params = SamplingParams(max_new_tokens=config.sample_tokens, temperature=0.0)
    replies = generate(model, prompts, params, stop_token_ids(tokenizer))
    return [
        {
            "temperature": params.temperature,
            "prompt": prompt,
            "completion": "".join(completion_pieces(tokenizer, Start([]), ids)),
        }
        for prompt, ids in zip(config.sample_prompts, replies, strict=True)
    ]
