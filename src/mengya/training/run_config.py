"""The settings that pretrain, sft and dpo share. Values and their rules only; nothing runs here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from mengya.config import Config, OneOrMany
from mengya.data.rows.batch_size import BatchRamp, BatchSize
from mengya.data.rows.mixing.config import DECAY, MixtureConfig, Source
from mengya.runtime.device import DeviceName, PrecisionName
from mengya.training.distributed.config import StrategyConfig
from mengya.training.optim.config import OptimizerConfig
from mengya.training.schedule import ScheduleConfig
from mengya.training.telemetry.metrics import TrackerName


class DataConfig(MixtureConfig):
    validation: OneOrMany[Source] = []
    """Shards held out; without them there is no validation loss and no best checkpoint."""
    sequence_length: int = Field(default=512, ge=8)
    """Positions of a row; documents are packed into rows and never see each other."""
    max_validation_rows: int | None = Field(default=None, ge=1)
    """Validate on a sample of so many rows, drawn by seed and the same at every step; null: on all."""
    verify: bool = False
    """Compare all shards with their checksums before the run; reads every byte once. For shards that were
    copied, or when a run fails for no visible reason."""

    @model_validator(mode="after")
    def _plain_validation(self) -> DataConfig:
        for number, source in enumerate(self.validation):
            mixed = ["max_epochs"] if source.max_epochs is not None else []
            mixed += ["order"] if source.order != "shuffled" else []
            if mixed:
                raise ValueError(
                    f"validation[{number}].{' and '.join(mixed)}: held-out rows are read once, in no order; "
                    f"leave {' and '.join(mixed)} out"
                )
        return self


class LoopConfig(Config):
    log_every: int = Field(default=10, ge=1)
    """Steps between lines of metrics."""
    eval_every: int = Field(default=200, ge=1)
    """Steps between validations; the last step always validates."""
    save_every: int = Field(default=200, ge=1)
    """Steps between checkpoints; the last step always saves."""
    sample_every: int = Field(default=200, ge=1)
    """Steps between samples from the fixed prompts; the last step always samples."""
    keep_last: int = Field(default=3, ge=1)
    """Checkpoints kept in addition to the best one."""
    yardsticks: OneOrMany[str] = []
    """Yardsticks of `mengya evaluate` to measure while training (docs/evaluation.md): reference_text, ..."""
    yardstick_every: int = Field(default=200, ge=1)
    """Steps between their measurements; the last step always measures."""
    yardstick_limit: int | None = Field(default=100, ge=1)
    """Only so many items of every part of a yardstick while training; null takes all."""
    max_skipped_in_a_row: int = Field(default=20, ge=1)
    """Go back to a checkpoint after so many steps in a row that could not be applied (gradients not
    finite): fp16 alone skips some ten at the start."""
    spike_threshold: float | None = Field(default=10.0, gt=0)
    """A loss so many robust standard deviations above the median of the last 64 steps, and at least
    half as much again, is a spike; null turns this off."""
    spike_steps: int = Field(default=5, ge=1)
    """Go back to a checkpoint after so many spikes in a row; a single one is left to clipping."""
    max_rewinds: int = Field(default=3, ge=0)
    """Times that a run may go back, leaving out the batches at fault, before it stops with a report."""


class RunConfig(Config):
    run_dir: Path
    """Folder of this run: config.yaml, log.txt, metrics.jsonl, samples.jsonl, report.html, checkpoints/."""
    resume: bool = False
    """Resume from the newest checkpoint in run_dir, if there is one."""
    seed: int = 0
    """Decides initial weights, order of data and noise."""
    device: DeviceName = "auto"
    """auto takes CUDA where there is one."""
    threads: PositiveInt | None = None
    """CPU threads that share a computation of torch; null: torch's own choice, OMP_NUM_THREADS or else one
    a core."""
    precision: PrecisionName = "auto"
    """dtype of matrix products; weights and optimizer stay fp32. auto: bf16 where the hardware has it. fp8:
    bf16, and feed-forward layers in fp8 while training (docs/concepts.md): faster on Ada and later."""
    compile: bool | None = None
    """torch.compile; null means on CUDA only."""
    strategy: StrategyConfig = StrategyConfig()
    """How several processes share the work (docs/distributed.md)."""
    data: DataConfig
    """What to train on."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Rows per forward pass of one device."""
    global_batch_size: int | None = Field(default=None, ge=1)
    """Rows per step over all devices; null means one micro-batch a device. Accumulation is derived."""
    batch_ramp: BatchRamp | None = None
    """Start with a smaller global batch and double it up to global_batch_size; null: always the same."""
    max_steps: int | None = Field(default=None, ge=1)
    """Steps to train; give this or epochs."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the data; give this or max_steps."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimizer."""
    schedule: ScheduleConfig = ScheduleConfig()
    """The learning rate over the steps."""
    loop: LoopConfig = LoopConfig()
    """When to log, validate, save and sample."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    shifted_sparse_ratio: float | None = Field(default=None, gt=0, le=1)
    """Shifted sparse attention in training (LongLoRA, arXiv:2309.12307): each half of the heads sees groups
    of this share of sequence_length only, 0.25 in the paper; validation and the saved model see all.
    null: full attention."""
    neftune_alpha: float = Field(default=0.0, ge=0)
    """NEFTune noise on the embeddings in training (arXiv:2310.05914); 5 is usual for SFT."""
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    """dtype of the saved model.safetensors; fp32 weights are kept in trainer/ as well where it is shorter."""
    trackers: list[TrackerName] = ["tensorboard"]
    """Where metrics go in addition to metrics.jsonl. wandb and swanlab: project mengya, named by run_dir, a
    resumed run stays one; WANDB_PROJECT, WANDB_NAME, SWANLAB_PROJ_NAME and SWANLAB_EXP_NAME change that."""
    sample_prompts: list[str] = []
    """Prompts completed every loop.sample_every steps into samples.jsonl."""
    sample_tokens: int = Field(default=64, ge=1)
    """Longest sample, in tokens."""

    @property
    def uses_base(self) -> bool:
        """Whether every step computes with the weights of init_from, and not the first alone."""
        return False

    @model_validator(mode="after")
    def _length_of_run(self) -> RunConfig:
        if (self.max_steps is None) == (self.epochs is None):
            raise ValueError("give either max_steps or epochs, one of them")
        if self.global_batch_size is not None and self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not a multiple of "
                f"micro_batch_size {self.micro_batch_size}"
            )
        if self.batch_ramp is not None:
            if self.global_batch_size is None:
                raise ValueError("batch_ramp needs the global_batch_size that it ends with")
            BatchSize(self.global_batch_size, self.batch_ramp)
        return self

    @model_validator(mode="after")
    def _phase_of_decay(self) -> RunConfig:
        named = self.schedule.name
        if named != "wsd" and any(phase.until == DECAY for phase in self.data.phases):
            raise ValueError(
                f"data.phases: until decay is where the rate of schedule.name=wsd begins to fall, and "
                f"{named} has no such step; write schedule.name=wsd, or until as a share of the run"
            )
        return self

    @model_validator(mode="after")
    def _engine_of_fp8(self) -> RunConfig:
        if self.precision == "fp8" and not self.strategy.supports_fp8:
            raise ValueError("precision=fp8 runs with strategy.name auto, ddp or fsdp")
        return self
