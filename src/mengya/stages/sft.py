"""`mengya sft`: next-token prediction on the assistant's turns of conversations; full or LoRA.

Text shards may be mixed in (`data.train` with weights): every token of them has a label, and they keep
the model from forgetting what it was pretrained on.
"""

from __future__ import annotations

from functools import partial

from pydantic import Field, model_validator

from mengya.models.config.quantization import TrainedQuantization
from mengya.stages.run.assemble import open_strategy, train
from mengya.stages.run.losses import pick_next_token
from mengya.stages.run.resume import check_run, in_run_folder
from mengya.stages.run.tuning import TuneConfig, open_tuned, sample_replies


class SftConfig(TuneConfig):
    """Settings of `mengya sft`."""

    quantization: TrainedQuantization | None = None
    """Round the weights of the layers from now on, {bits: 2, group_size: 32} or ternary
    (docs/quantization.md); null: as init_from has it."""
    z_loss: float = Field(default=0.0, ge=0)
    """Weight of log^2 Z added to the loss (docs/optimizers.md): 1e-4 keeps logits small; 0 for none."""

    @model_validator(mode="after")
    def _all_weights(self) -> SftConfig:
        if self.quantization is not None and self.lora is not None:
            raise ValueError(
                "quantization rounds weights while they are trained, and lora freezes them; write lora=null "
                "or quantization=null"
            )
        return self


@in_run_folder
def run(config: SftConfig) -> bool:
    config = check_run(config)
    strategy = open_strategy(config)
    trained, tokenizer = open_tuned(config, strategy, config.quantization)
    loss = pick_next_token(strategy.execution, trained.module, config.z_loss, few_labels=True)
    sample = partial(sample_replies, config, tokenizer) if config.sample_prompts else None
    return train("sft", config, strategy, trained, loss, "conversation", sample, ["text"])
