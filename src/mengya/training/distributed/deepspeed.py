"""DeepSpeed's ZeRO 0 to 3, as an optional extra: `pip install -e '.[deepspeed]'`.

Its own checkpoints are pickled and are not used: full fp32 weights and moments are gathered and set
through its public functions, so that a run resumes under any other strategy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.runtime.optional import require
from mengya.training.checkpoint.tensor_files import read_tensors
from mengya.training.distributed.config import StrategyConfig
from mengya.training.distributed.deepspeed_config import AutoValues, read_deepspeed_config
from mengya.training.distributed.process_group import ProcessGroupStrategy
from mengya.training.distributed.sharded import ShardedStrategy
from mengya.training.execution import Execution
from mengya.training.optim.build import load_optimizer_state, optimizer_state


class DeepSpeed(ShardedStrategy, ProcessGroupStrategy):
    """The engine's backward and step, with our sums: the loss is a share of the global mean already."""

    def __init__(self, execution: Execution, config: StrategyConfig, auto: AutoValues) -> None:
        os.environ.setdefault("DS_ACCELERATOR", execution.device.type)
        self._deepspeed: Any = require("deepspeed", "deepspeed")
        if execution.autocast_dtype == torch.float16:
            raise UserError(
                "strategy.name=deepspeed computes in bf16 or fp32; write precision=bf16 or "
                "precision=fp32, or strategy.name=ddp for fp16"
            )
        ProcessGroupStrategy.__init__(self, execution)
        ShardedStrategy.__init__(self)
        assert config.deepspeed_config is not None  # the config was validated
        self._config = read_deepspeed_config(
            config.deepspeed_config, auto, self.world_size, execution.autocast_dtype
        )
        self._stage: int = self._config["zero_optimization"]["stage"]
        self._engine: Any = None
        self._named: dict[str, nn.Parameter] = {}

    def place(self, model: CausalLM) -> None:
        self.remember(model)
        model.to(self.device)
        if self.execution.compile and self._stage < 3:
            model.compile_layers()
        if self._stage == 3:
            # Its own module's hook gathers a weight: it must not be used from outside of that module.
            model.pad_vocabulary = False
            layers = {type(layer) for layer in model.model.layers}
            self._deepspeed.utils.set_z3_leaf_modules(model, list(layers))

    def wrap(self, model: CausalLM, optimizers: Sequence[Optimizer]) -> nn.Module:
        if len(optimizers) != 1:
            raise UserError(
                "strategy.name=deepspeed flattens all weights, so optimizer.name must be adamw; for "
                "muon and normuon write strategy.name=fsdp or ddp"
            )
        if self._stage == 3 and not all(p.requires_grad for p in model.parameters()):
            raise UserError(
                "ZeRO 3 does not gather frozen weights in time for the backward pass; with lora take "
                "zero2.json, or strategy.name=fsdp"
            )
        self._named = dict(model.named_parameters(remove_duplicate=False))
        exact = {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters()}
        self._engine, *_ = self._deepspeed.initialize(
            model=model, optimizer=optimizers[0], config=self._config, dist_init_required=False
        )
        if self._stage in (1, 2):
            # They look for the moments once, after the first group of weights is updated: those of the
            # other groups must be there by then.
            for group in optimizers[0].param_groups:
                for part in group["params"]:
                    optimizers[0].state[part] = {
                        "step": torch.zeros((), dtype=torch.float32, device=part.device),
                        "exp_avg": torch.zeros_like(part),
                        "exp_avg_sq": torch.zeros_like(part),
                    }
        if (
            self.execution.autocast_dtype is not None
        ):  # its fp32 weights were made from rounded ones
            for name, value in exact.items():
                self._deepspeed.utils.safe_set_full_fp32_param(
                    self._named[name], value.to(self.device)
                )
        if self._stage == 3:
            # The model hands this weight to the loss, outside of the module that owns it.
            self._deepspeed.zero.register_external_parameter(model, model.lm_head.weight)
        return self._engine

    def autocast(self) -> AbstractContextManager[object]:
        return nullcontext()

    def accumulate(self, model: nn.Module, last: bool) -> AbstractContextManager[object]:
        self._engine.set_gradient_accumulation_boundary(last)
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        # The engine averages over ranks; our losses are already shares of the global mean.
        self._engine.backward(loss * self.world_size, scale_wrt_gas=False)

    def step(
        self, optimizers: Sequence[Optimizer], parameters: Sequence[nn.Parameter], max_norm: float
    ) -> Tensor:
        if self._stage == 0:
            norm = super().step([], parameters, max_norm)
            if norm.isfinite():
                self._engine.step()
            else:
                self._engine.zero_grad()
            return norm
        self._engine.step()
        applied = self._engine.was_step_applied()
        norm = self._engine.get_global_grad_norm()
        return torch.as_tensor(float(norm) if applied else float("inf"), device=self.device)

    @torch.no_grad()
    def gather_full(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Exact weights, whatever the module holds of them; one after another to rank 0's host."""
        gathered: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            if name in self._named:
                tensor = self._exact(self._named[name])
            if self.rank == 0:
                gathered[name] = tensor.to("cpu", copy=True)
        return gathered

    @torch.no_grad()
    def scatter(self, name: str, full: Tensor | None, place: Tensor) -> None:
        shape = getattr(place, "ds_shape", place.shape)
        value = torch.empty(shape, dtype=torch.float32, device=self.device)
        if not place.is_floating_point():
            value = value.to(place.dtype)
        if full is not None:
            value.copy_(full)
        if not value.numel():
            return
        dist.broadcast(value, src=0)
        if place.requires_grad and self._stage > 0:
            self._deepspeed.utils.safe_set_full_fp32_param(place, value)
        if self._stage == 3 and name in self._named:
            with self._deepspeed.zero.GatheredParameters([place], modifier_rank=0):
                if self.rank == 0:
                    place.copy_(value)
            return
        place.copy_(value)

    def local_shards(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return self.gather_full(tensors)

    def optimizer_state(
        self, optimizers: Sequence[Optimizer], model: nn.Module
    ) -> Mapping[str, Tensor]:
        if self._stage == 0:
            return optimizer_state(optimizers, model)
        own = [state for state in optimizers[0].state.values() if "step" in state]
        gathered: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            for key in ("exp_avg", "exp_avg_sq"):
                value = self._deepspeed.utils.safe_get_full_optimizer_state(parameter, key)
                if self.rank == 0 and value is not None:
                    gathered[f"{name}.{key}"] = value.to("cpu", copy=True)
            if self.rank == 0 and own:
                # A copy for each: safetensors refuses tensors that share memory.
                gathered[f"{name}.step"] = torch.as_tensor(own[0]["step"]).detach().cpu().clone()
        return gathered

    def load_optimizer_state(
        self, optimizers: Sequence[Optimizer], model: CausalLM, checkpoint: Path
    ) -> None:
        if self._stage == 0:
            load_optimizer_state(optimizers, model, checkpoint)
            return
        tensors = read_tensors(checkpoint, "optimizer") or {}
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        expected = {f"{n}.{key}" for n in trained for key in ("exp_avg", "exp_avg_sq", "step")}
        if tensors.keys() != expected:
            odd = sorted(tensors.keys() ^ expected)[:3]
            raise UserError(
                "the checkpoint's optimizer state is not that of AdamW on the weights this run trains "
                f"(for example {', '.join(odd)}); resume with the run's own settings"
            )
        self._make_state(model)
        for name, parameter in trained.items():
            for key in ("exp_avg", "exp_avg_sq"):
                value = tensors[f"{name}.{key}"].to(self.device)
                self._deepspeed.utils.safe_set_full_optimizer_state(parameter, value, key)
        step = tensors[f"{next(iter(trained))}.step"]
        for state in optimizers[0].state.values():
            state["step"] = step.to(torch.as_tensor(state["step"]).device, copy=True)

    def _make_state(self, model: CausalLM) -> None:
        """Moments exist after the first update only: one of zero gradients at a rate of zero."""
        groups = self._engine.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] = 0.0
        ids = torch.zeros(1, 2, dtype=torch.int64, device=self.device)
        self._engine.set_gradient_accumulation_boundary(True)
        was_training = model.training
        model.eval()
        output = self._engine(input_ids=ids)
        self._engine.backward(output.head_output.float().sum() * 0.0, scale_wrt_gas=False)
        self._engine.step()
        model.train(was_training)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate

    def _exact(self, parameter: nn.Parameter) -> Tensor:
        if parameter.requires_grad and self._stage > 0:
            return self._deepspeed.utils.safe_get_full_fp32_param(parameter)
        with self._deepspeed.zero.GatheredParameters([parameter], enabled=self._stage == 3):
            return parameter.detach().clone()
