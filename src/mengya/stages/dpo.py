"""`mengya dpo`: direct preference optimization against a frozen reference.

The reference is the model that training starts from: with LoRA the same module with its adapters
off, otherwise a second copy that is never trained.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from pydantic import Field, model_validator

from mengya.batch import Batch
from mengya.losses.dpo import DPO
from mengya.losses.token_nll import ModelOutput
from mengya.models.adapters.lora import disable_adapters
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.stages.run.assemble import open_strategy, train
from mengya.stages.run.losses import pick_token_nll
from mengya.stages.run.resume import check_run, in_run_folder
from mengya.stages.run.tuning import TuneConfig, open_tuned, sample_replies
from mengya.training.distributed.strategy import Strategy


class DpoConfig(TuneConfig):
    beta: float = Field(default=0.1, gt=0)
    """Strength of the penalty for moving away from the reference."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Assumed share of wrongly labelled pairs (conservative DPO)."""
    sft_weight: float = Field(default=0.0, ge=0)
    """Weight of the chosen completion's own mean loss, which keeps its probability from falling."""

    @property
    def uses_base(self) -> bool:
        """As `RunConfig.uses_base`: the reference is the base."""
        return True

    @model_validator(mode="after")
    def _one_precision(self) -> DpoConfig:
        if self.precision == "fp8":
            raise ValueError(
                "precision=fp8 would compare the policy with a reference computed otherwise; write "
                "precision=bf16 or auto"
            )
        return self

    @model_validator(mode="after")
    def _one_attention(self) -> DpoConfig:
        if self.shifted_sparse_ratio is not None:
            raise ValueError(
                f"shifted_sparse_ratio={self.shifted_sparse_ratio} would train a policy that sees less "
                "than its reference; use it in pretrain or sft"
            )
        return self


@in_run_folder
def run(config: DpoConfig) -> bool:
    config = check_run(config)
    strategy = open_strategy(config)
    trained, tokenizer = open_tuned(config, strategy)
    loss = DPO(
        reference=_reference(config, strategy, trained.module),
        beta=config.beta,
        label_smoothing=config.label_smoothing,
        sft_weight=config.sft_weight,
        token_nll=pick_token_nll(strategy.execution),
    )
    sample = partial(sample_replies, config, tokenizer) if config.sample_prompts else None
    return train("dpo", config, strategy, trained, loss, "preference", sample)


def _reference(
    config: DpoConfig, strategy: Strategy, policy: CausalLM
) -> Callable[[Batch], ModelOutput]:
    if config.lora is None:
        frozen = load_causal_lm(config.init_from, device=strategy.init_device).eval()
        frozen.requires_grad_(False)
        strategy.place(frozen)
        return lambda batch: frozen(**batch.model_inputs())

    def without_adapters(batch: Batch) -> ModelOutput:
        training = policy.training
        policy.eval()  # no dropout and no embedding noise in the reference
        try:
            with disable_adapters(policy), torch.no_grad():
                return policy(**batch.model_inputs())
        finally:
            policy.train(training)

    return without_adapters
