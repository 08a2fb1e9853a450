"""`mengya pretrain`: next-token prediction on text, from random weights or from a folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, model_validator
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from mengya.config import load_config
from mengya.generation.sampling import SamplingParams
from mengya.generation.text_completion import continue_texts
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ContextExtension, ModelConfig
from mengya.models.config.quantization import TrainedQuantization
from mengya.models.config.validation import new_model_problems
from mengya.models.hf.checkpoint import check_vocabulary, load_causal_lm, load_weights, write_folder
from mengya.models.hf.config import load_model_config
from mengya.planning.sizes import parameter_counts
from mengya.stages.run.assemble import TrainedModel, open_strategy, train
from mengya.stages.run.losses import pick_next_token
from mengya.stages.run.resume import check_run, in_run_folder
from mengya.tokenizer.load import load_tokenizer
from mengya.training.checkpoint.tensor_files import read_tensors
from mengya.training.run_config import RunConfig


class PretrainConfig(RunConfig):
    tokenizer: Path | None = None
    """Tokenizer folder; null with init_from: the folder's own."""
    model: ModelConfig | None = None
    """Shape of a new model; its vocab_size, where it is left out, is the tokenizer's."""
    init_from: Path | None = None
    """Start from this checkpoint or run folder (continued pretraining) instead of random weights."""
    stretch: ContextExtension | None = None
    """With init_from: give the model a longer context, such as {max_position_embeddings: 4096,
    rope_parameters: {rope_type: yarn, factor: 4, original_max_position_embeddings: 1024}}."""
    quantization: TrainedQuantization | None = None
    """With init_from: round the weights of the layers from now on, {bits: 2, group_size: 32} or ternary
    (docs/quantization.md); null: as the folder has it."""
    z_loss: float = Field(default=0.0, ge=0)
    """Weight of log^2 Z added to the loss (docs/optimizers.md): 1e-4 keeps logits small; 0 for none."""

    @model_validator(mode="after")
    def _one_start(self) -> PretrainConfig:
        if (self.model is None) == (self.init_from is None):
            raise ValueError(
                "give model (a new model) or init_from (start from a folder), one of them"
            )
        if self.stretch is not None and self.init_from is None:
            raise ValueError(
                "stretch changes a trained model: give init_from, or write max_position_embeddings and "
                "rope_parameters into model"
            )
        if self.quantization is not None and self.init_from is None:
            raise ValueError(
                "quantization changes a trained model: give init_from, or write model.quantization"
            )
        if self.model is not None and self.tokenizer is None:
            raise ValueError(
                "a new model needs tokenizer=FOLDER (make one with `mengya tokenizer`)"
            )
        return self

    @model_validator(mode="after")
    def _worth_training(self) -> PretrainConfig:
        # A run of an earlier version may be resumed; it warns of its router (assemble.py).
        new = [] if self.resume or self.model is None else new_model_problems(self.model)
        if reasons := "; ".join(new).replace("write ", "write model."):
            raise ValueError(reasons)
        return self


def follow_tokenizer(config: PretrainConfig) -> PretrainConfig:
    """The settings with the vocab_size of a new model filled in where it was left out.

    It is the number of the tokenizer's ids; of a resumed run what the run started with.
    """
    model, earlier = config.model, config.run_dir / "config.yaml"
    if model is None or config.tokenizer is None or "vocab_size" in model.model_fields_set:
        return config
    before = None
    if config.resume and earlier.is_file():
        before = load_config(PretrainConfig, earlier, ["resume=true"]).model
    rows = len(load_tokenizer(config.tokenizer)) if before is None else before.vocab_size
    model = model.model_copy(update={"vocab_size": rows})
    return config.model_copy(update={"model": model})


@in_run_folder
def run(config: PretrainConfig) -> bool:
    config = check_run(follow_tokenizer(config))
    start = config.init_from
    tokenizer_folder = config.tokenizer or start
    assert tokenizer_folder is not None  # the config was validated
    tokenizer = load_tokenizer(tokenizer_folder)
    strategy = open_strategy(config)
    if start is not None:
        shape = load_model_config(start)
        if config.stretch is not None:
            shape = shape.extend_context(config.stretch)
        shape = shape.quantized(config.quantization)
        model = load_causal_lm(start, device=strategy.init_device, config=shape)
    else:
        assert config.model is not None
        # Drawn on the CPU, so that every device starts from the same weights.
        model = CausalLM(config.model, device=strategy.init_device)
    check_vocabulary(model, tokenizer)
    if strategy.rank == 0:
        counts = parameter_counts(model.config)
        share = counts.embedding / counts.total
        Console(stderr=True).print(
            f"model: {counts.total / 1e6:.2f}M parameters, {counts.active / 1e6:.2f}M active, "
            f"embedding {share:.0%}", highlight=False,
        )  # fmt: skip
        unused = model.config.vocab_size - len(tokenizer)
        if config.model is not None and unused > 0:
            Console(stderr=True).print(
                f"model.vocab_size={model.config.vocab_size} has {unused} rows more than the tokenizer has "
                f"ids ({len(tokenizer)}): they are no token's; left out, it is {len(tokenizer)}",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
    trained = TrainedModel(
        module=model,
        tokenizer_folder=tokenizer_folder,
        tensors=model.state_dict,
        write=partial(
            write_folder, model, tokenizer, tokenizer_folder, getattr(torch, config.save_dtype)
        ),
        restore=lambda model, path: load_weights(model, path, read_tensors(path, "master")),
    )
    loss = pick_next_token(strategy.execution, model, config.z_loss, few_labels=False)
    sample = partial(_complete, config, tokenizer) if config.sample_prompts else None
    return train("pretrain", config, strategy, trained, loss, "text", sample)


def _complete(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, model: CausalLM
) -> list[dict[str, Any]]:
    """Each fixed prompt continued as a text document, greedily and with sampling."""
    samples = []
    for temperature in (0.0, 0.8):
        params = SamplingParams(
            max_new_tokens=config.sample_tokens, temperature=temperature, seed=config.seed
        )
        completions = continue_texts(model, tokenizer, config.sample_prompts, params)
        for prompt, text in zip(config.sample_prompts, completions, strict=True):
            samples.append({"temperature": temperature, "prompt": prompt, "completion": text})
    return samples
