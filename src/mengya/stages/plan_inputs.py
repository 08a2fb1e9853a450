"""What a plan starts from: the run that a recipe describes, the shape of its model, its data, the device.

Takes a recipe; gives the checked config, a `CausalLM` on the meta device, `Data` and a `Device`. Neither shards nor
checkpoints have to be there yet: what is not is found in the recipes beside, or assumed and said so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from mengya.config import UserError, load_config, read_recipe
from mengya.data.datasets import PackedRows
from mengya.data.mixture import Mixture
from mengya.data.shards import MANIFEST, TokenShards
from mengya.models.causal_lm import CausalLM
from mengya.models.config import ModelConfig
from mengya.models.hf_config import load_model_config
from mengya.runtime import pick_autocast_dtype, pick_device
from mengya.stages.dpo import DpoConfig
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.run_config import RunConfig
from mengya.stages.sft import SftConfig
from mengya.stages.tuning import TuneConfig
from mengya.training.hardware import Device, named_device, this_device

Verb = Literal["pretrain", "sft", "dpo"]
CONFIGS: dict[Verb, type[RunConfig]] = {
    "pretrain": PretrainConfig,
    "sft": SftConfig,
    "dpo": DpoConfig,
}


@dataclass(frozen=True)
class Data:
    """The rows of one epoch.

    Attributes:
        rows: None where the shards are not there and nothing says how much they will hold.
        visible: positions that a token sees on average. fill: part of the positions that is no padding.
        labelled: part of the positions with a label.
        missing: shard folders that are not there; then visible and fill are those of whole rows.
    """

    rows: int | None
    visible: float
    fill: float
    labelled: float
    missing: tuple[Path, ...] = ()


def pick_verb(name: str | None) -> Verb | None:
    """The verb that a person typed, checked; None stays None."""
    if name is None:
        return None
    for verb in CONFIGS:
        if verb == name:
            return verb
    raise UserError(f"--verb {name} is none of {', '.join(CONFIGS)}")


@dataclass(frozen=True)
class Hardware:
    """What the user says of the machine; None: as the table or the machine itself says.

    Attributes:
        device: a name of hardware.yaml, or any name with peak_tflops and memory_gib.
        price_per_hour: of one device, in the user's currency.
    """

    device: str | None = None
    devices: int = 1
    peak_tflops: float | None = None
    memory_gib: float | None = None
    price_per_hour: float | None = None


def read_run(
    recipe: Path | None, overrides: Sequence[str], verb: Verb | None
) -> tuple[Verb, RunConfig]:
    """The verb of a recipe (a file, or a folder with a pretrain.yaml) and its checked settings.

    Raises:
        UserError: all problems of the settings; or the recipe could be of several verbs.
    """
    if recipe is not None and recipe.is_dir():
        recipe = recipe / "pretrain.yaml"
    verb = verb or _find_verb(recipe, overrides)
    return verb, load_config(CONFIGS[verb], recipe, overrides)


def _find_verb(recipe: Path | None, overrides: Sequence[str]) -> Verb:
    """By the file's name, else by keys that one verb alone has."""
    for verb in CONFIGS:
        if recipe is not None and recipe.stem == verb:
            return verb
    keys = set(read_recipe(recipe)) if recipe is not None else set()
    keys |= {text.partition("=")[0].partition(".")[0] for text in overrides}
    if keys & (DpoConfig.model_fields.keys() - SftConfig.model_fields.keys()):
        return "dpo"
    if keys & (PretrainConfig.model_fields.keys() - SftConfig.model_fields.keys()):
        return "pretrain"
    raise UserError(
        f"{recipe or 'the command line'} may be a recipe of several verbs; "
        "write --verb pretrain, --verb sft or --verb dpo"
    )


def open_model(config: RunConfig, recipe: Path | None) -> CausalLM:
    """The model of the run without memory, adapters in it and the rest frozen where LoRA trains.

    Raises:
        UserError: it goes on with a folder that is not there, and no recipe beside makes it.
    """
    model = CausalLM(find_shape(config, recipe), device="meta")
    if isinstance(config, TuneConfig) and config.lora is not None:
        from mengya.models.lora import add_lora  # peft takes two seconds to import

        add_lora(model, config.lora)
    return model


def find_shape(config: RunConfig, recipe: Path | None, seen: tuple[Path, ...] = ()) -> ModelConfig:
    """The recipe's own model; of the folder in init_from; or of the recipe beside that will make it."""
    shape = getattr(config, "model", None)
    if shape is not None:
        return shape
    folder: Path = getattr(config, "init_from")  # noqa: B009 - every verb without a model has it
    if (folder / "config.json").is_file():
        return load_model_config(folder)
    beside = [] if recipe is None else sorted(recipe.parent.glob("*.yaml"))
    for path in beside:
        if path in seen or path == recipe:
            continue
        values = read_recipe(path)
        if "data" in values and _makes(values, folder):
            _, earlier = read_run(path, (), None)
            return find_shape(earlier, path, (*seen, path))
    raise UserError(
        f"init_from={folder} is not there yet, and no recipe beside {recipe or 'this one'} has a "
        "run_dir that makes it; train it first, or name a folder with a config.json"
    )


def _makes(values: dict[str, Any], folder: Path) -> bool:
    run_dir = values.get("run_dir")
    return isinstance(run_dir, str) and Path(run_dir) in (folder, *folder.parents)


def open_data(config: RunConfig, tokens: float | None, needs_labels: bool) -> Data:
    """What one epoch holds: from the shards where they are, else from `tokens`.

    Args:
        tokens: of one epoch, given by the user; used only where shards are missing.
        needs_labels: whether to read the masks.
    """
    S = config.data.sequence_length
    missing = tuple(s.path for s in config.data.train if not (s.path / MANIFEST).is_file())
    if missing:
        rows = None if tokens is None else max(1, round(tokens / S))
        return Data(rows, visible=(S + 1) / 2, fill=1.0, labelled=1.0, missing=missing)
    parts = [
        (PackedRows(TokenShards(source.path), S, config.seed), source.weight)
        for source in config.data.train
    ]
    mixture = Mixture(parts, config.seed)
    labelled = mixture.labelled if needs_labels else 1.0
    return Data(len(mixture), mixture.visible, mixture.fill, labelled)


def open_device(
    config: RunConfig, hardware: Hardware, shape: ModelConfig
) -> tuple[Device, torch.dtype | None]:
    """The device to plan for, and the dtype of its matrix products (None: fp32)."""
    own = hardware.peak_tflops is not None and hardware.memory_gib is not None
    if hardware.device is None:
        here = pick_device(config.device)
        dtype = pick_autocast_dtype(config.precision, here)
        rows = min(config.micro_batch_size * config.data.sequence_length, 4096)
        product = (rows, shape.hidden_size, shape.intermediate_size)
        device = this_device(here, dtype, product)
    else:
        half = config.precision != "fp32"
        if own:
            device = Device(hardware.device, "cuda", None, 0.0, bf16=True, fp8=True)
        else:
            device = named_device(hardware.device, half)
        if config.precision == "bf16" and not device.bf16:
            raise UserError(
                f"precision=bf16, but {device.name} has no bf16; write precision=fp16 or auto"
            )
        fp16 = config.precision == "fp16" or not device.bf16
        dtype = (torch.float16 if fp16 else torch.bfloat16) if half else None
    if config.precision == "fp8" and not device.fp8:
        raise UserError(
            f"precision=fp8, but {device.name} does not multiply fp8; write precision=bf16 or auto"
        )
    if hardware.peak_tflops is not None:
        device = device._replace(peak_flops=hardware.peak_tflops * 1e12)
    if hardware.memory_gib is not None:
        device = device._replace(memory=hardware.memory_gib * 2**30)
    return device, dtype
