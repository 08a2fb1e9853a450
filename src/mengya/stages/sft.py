"""`mengya sft`: next-token prediction on the assistant's turns of conversations; full or LoRA.

Text shards may be mixed in (`data.train` with weights): learned whole, they keep the model from
forgetting what it was pretrained on.
"""

from __future__ import annotations

from functools import partial

from mengya.losses.next_token import NextToken
from mengya.stages.training_run import (
    check_run,
    open_strategy,
    pick_token_nll,
    train,
    uses_compile,
)
from mengya.stages.tuning import TuneConfig, open_tuned, sample_replies


class SftConfig(TuneConfig):
    """Settings of `mengya sft`."""


def run(config: SftConfig) -> bool:
    check_run(config)
    strategy = open_strategy(config)
    trained, tokenizer = open_tuned(config, strategy)
    loss = NextToken(
        pick_token_nll(config, strategy), labelled_only=not uses_compile(config, strategy)
    )
    sample = partial(sample_replies, config, tokenizer) if config.sample_prompts else None
    return train("sft", config, strategy, trained, loss, "conversation", sample, ["text"])
