"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) through PEFT, in its own folder format.

Takes a `CausalLM` and puts adapters into it, in place; saves and loads adapter_config.json and
adapter_model.safetensors that PEFT reads on the matching transformers class; merges them away.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import peft
import torch
from peft.tuners.lora import LoraLayer
from pydantic import Field, PositiveFloat, PositiveInt, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mengya.config import Config
from mengya.errors import UserError
from mengya.models.adapters.qlora import quantize_base
from mengya.models.adapters.targets import lora_targets
from mengya.models.adapters.token_rows import (
    PARAMETER,
    add_token_rows,
    from_peft,
    merge_token_rows,
    select_token_rows,
    to_peft,
)
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import load_causal_lm, weights_sha256
from mengya.models.quantized.full import rounds

_ADAPTER = "default"
_PREFIX = "base_model.model."  # PEFT wraps twice, and says so in the names on disk
_CONFIG_FILE, _WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_BASE_FILE = "base.json"  # ours: {"weights_sha256": ...}; PEFT warns of keys that it does not know


class LoraConfig(Config):
    """Adapters: W + (alpha / rank) * B A, W frozen."""

    rank: PositiveInt = 16
    """Inner width of an adapter."""
    alpha: PositiveFloat = 32.0
    """The adapter's output is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapter, in training."""
    use_dora: bool = False
    """DoRA (Liu et al. 2024, arXiv:2402.09353): the length of each weight row is learned apart from its
    direction; not on routed experts."""
    base_4bit: bool = False
    """QLoRA (Dettmers et al. 2023, arXiv:2305.14314): the frozen linear layers in 4 bits (nf4) in training;
    needs CUDA and the extra `qlora`. Merging takes the base as it is in its folder."""
    targets: list[str] | None = None
    """Layers that get one, such as [q_proj, v_proj]; null: all projections and routed experts
    (PEFT cannot name the dense and shared layers of a model of experts)."""
    trainable_tokens: Literal["added"] | list[int | str] | None = None
    """Tokens, or their ids, whose rows of embedding and output layer are trained too, such as [心肌梗死];
    added: those of `mengya extend`; null: none, new tokens stay as extend made them."""

    @field_validator("trainable_tokens")
    @classmethod
    def _some_tokens(cls, value: str | list[int | str] | None) -> str | list[int | str] | None:
        if value == []:
            raise ValueError("names no token; write lora.trainable_tokens=null to train none")
        return value


def add_lora(model: CausalLM, config: LoraConfig, token_ids: Sequence[int] = ()) -> CausalLM:
    """Put adapters into `model` and freeze all else; at first they change nothing.

    Args:
        token_ids: what `lora.trainable_tokens` means (`trainable_tokens.find_ids`).

    Raises:
        UserError: a target that the model does not have, with the names that it has; dropout or DoRA
            on experts; 4 bits where they cannot be; adapters already there.
    """
    if any(True for _ in lora_layers(model)):
        raise UserError("the model already has LoRA adapters; merge them first (mengya merge)")
    layers, parameters = lora_targets(model, config.targets)
    if parameters and config.dropout:
        raise UserError(
            f"lora.dropout={config.dropout} cannot be applied inside experts "
            f"({', '.join(parameters)}); set lora.dropout=0 or leave them out of lora.targets"
        )
    if parameters and config.use_dora:
        attention = list(dict.fromkeys(name.rpartition(".")[2] for name in layers))
        raise UserError(
            f"lora.use_dora cannot be applied to experts ({', '.join(parameters)}): PEFT has no DoRA for "
            f"them; set lora.use_dora=false, or name other layers: lora.targets=[{', '.join(attention)}]"
        )
    if config.base_4bit:
        quantize_base(model)
    return _inject(
        model,
        peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=config.rank,
            lora_alpha=config.alpha,  # type: ignore[arg-type]  # PEFT only divides by it
            lora_dropout=config.dropout,
            use_dora=config.use_dora,
            target_modules=layers,
            target_parameters=parameters or None,
            trainable_token_indices=to_peft(token_ids, model.config.tie_word_embeddings),
        ),
    )


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """Every adapter with its name, outer before inner."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


@contextmanager
def disable_adapters(model: nn.Module) -> Iterator[None]:
    """Inside, the model computes as if it had no adapters."""
    layers = [layer for _, layer in lora_layers(model)]
    for layer in layers:
        layer.enable_adapters(False)
    select_token_rows(model, None)
    try:
        yield
    finally:
        select_token_rows(model, _ADAPTER)
        for layer in layers:
            layer.enable_adapters(True)


def merge_lora(model: CausalLM) -> CausalLM:
    """Add the adapters into the weights and take them out: same outputs, ordinary parameter names."""
    outermost: dict[str, LoraLayer] = {}
    for name, layer in lora_layers(model):
        if not any(name.startswith(f"{outer}.") for outer in outermost):
            outermost[name] = layer
    for name, layer in outermost.items():
        inner = layer
        while isinstance(inner, LoraLayer):
            inner.merge()
            inner = inner.base_layer
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, inner)
    merge_token_rows(model)
    return model.requires_grad_(True)


def save_adapter(
    model: CausalLM,
    directory: Path,
    base: Path | str,
    tensors: Mapping[str, Tensor] | None = None,
    base_sha256: str | None = None,
) -> None:
    """Write the adapters alone into `directory`.

    Args:
        base: folder of the model that they belong to, noted in adapter_config.json.
        tensors: a copy of the adapters by parameter name, taken earlier; None takes the model's own.
        base_sha256: `weights_sha256` of the base, so that another one in its place is refused.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config = _peft_config(model)
    values = {
        **config.to_dict(),
        "base_model_name_or_path": str(base),
        "inference_mode": True,
    }
    # PEFT keeps names in sets; sorted lists give the same file every time.
    text = json.dumps(values, indent=2, sort_keys=True, default=sorted)
    (directory / _CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    if base_sha256 is not None:
        record = json.dumps({"weights_sha256": base_sha256}) + "\n"
        (directory / _BASE_FILE).write_text(record, encoding="utf-8")
    taken = dict(_adapter_parameters(model)) if tensors is None else tensors
    stored = {
        _stored_name(name, _ADAPTER): tensor.detach().to("cpu").contiguous()
        for name, tensor in taken.items()
    }
    save_file(stored, directory / _WEIGHTS_FILE, metadata={"format": "pt"})


def load_adapter(model: CausalLM, directory: Path | str, name: str = _ADAPTER) -> CausalLM:
    """Bring a saved adapter into `model`, putting it in first where it has none of that name.

    Raises:
        UserError: files missing or damaged, or made for a model of another shape.
    """
    directory = Path(directory)
    config = _read_config(directory)
    before = getattr(model, "peft_config", {}).get(name)
    if before is None:
        _inject(model, config, name)
    else:
        _check_same_tokens(model, before, config, directory / _CONFIG_FILE)
    file = directory / _WEIGHTS_FILE
    try:
        stored = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged or missing ({error}); copy it again") from error
    places = {
        _stored_name(parameter, name): tensor
        for parameter, tensor in _adapter_parameters(model, name)
    }
    if wrong := sorted(stored.keys() ^ places.keys()):
        raise UserError(
            f"{file}: {len(wrong)} adapter tensors do not match this model, such as {wrong[0]}; "
            "was it trained on another base or with other targets?"
        )
    for parameter, place in places.items():
        if place.shape != stored[parameter].shape:
            raise UserError(
                f"{file}: {parameter} has shape {list(stored[parameter].shape)}, this model needs "
                f"{list(place.shape)}; was it trained on another base or rank?"
            )
        with torch.no_grad():
            place.copy_(stored[parameter])
    return model


def load_merged(directory: Path | str, base: Path | str | None = None) -> CausalLM:
    """The base model with a saved adapter merged into it, fp32 on the CPU.

    Args:
        base: folder of the base, whatever it holds; None takes the one that adapter_config.json names.

    Raises:
        UserError: as `load_adapter`; or the base is not a folder here, or has other weights than the
            adapter was trained on.
    """
    named = base_folder(directory, base)
    if base is None:
        _check_base(Path(directory), named)
    return merge_lora(load_adapter(load_causal_lm(named), directory))


def base_folder(directory: Path | str, base: Path | str | None = None) -> Path:
    """The folder of an adapter's base: `base`, else the one that adapter_config.json names.

    Raises:
        UserError: it is no folder here.
    """
    named = base or _read_config(Path(directory)).base_model_name_or_path
    if named is None or not Path(named).is_dir():
        raise UserError(
            f"the base of adapter {directory} is {str(named)!r}, which is no folder here; "
            f"name it: mengya merge {directory} out=FOLDER base=FOLDER"
        )
    return Path(named)


def trained_tokens(directory: Path | str) -> set[int]:
    """Ids whose rows of the embedding an adapter has trained."""
    indices = _read_config(Path(directory)).trainable_token_indices or []
    lists = [indices] if isinstance(indices, list) else list(indices.values())
    return {i for ids in lists for i in ids}


def _check_base(directory: Path, base: Path) -> None:
    """Refuse a base whose weights were replaced after the adapter was trained; older ones say nothing."""
    try:
        record = json.loads((directory / _BASE_FILE).read_text(encoding="utf-8"))
        expected = record["weights_sha256"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{directory / _BASE_FILE} cannot be read: {error!r}") from error
    if (found := weights_sha256(base)) != expected:
        raise UserError(
            f"{directory} was trained on other weights (SHA-256 {expected[:12]}) than {base} has now "
            f"({found[:12]}); restore them, or merge with these all the same: mengya merge {directory} "
            f"base={base} out=FOLDER"
        )


def _check_same_tokens(
    model: CausalLM, ours: peft.LoraConfig, found: peft.LoraConfig, file: Path
) -> None:
    """Refuse rows that would be put in the places of other tokens."""
    tokens = [from_peft(config.trainable_token_indices, model) for config in (ours, found)]
    if tokens[0] != tokens[1]:
        raise UserError(
            f"{file}: the adapter has trained rows of other tokens than lora.trainable_tokens means now; "
            "restore that setting and the base folder, or start a new run_dir"
        )


def _inject(model: CausalLM, config: peft.LoraConfig, name: str = _ADAPTER) -> CausalLM:
    if rounds(model):
        raise UserError(
            "this model was trained with rounded weights (model.quantization), in which an adapter cannot be "
            "merged: it would be rounded away; train all weights: write lora=null"
        )
    tokens = config.trainable_token_indices
    ids = from_peft(tokens, model)
    model.requires_grad_(False)
    # PEFT's own layers copy the matrix in every step and make its full gradient.
    config.trainable_token_indices = None
    try:
        peft.inject_adapter_in_model(config, model, name)
    except ValueError as error:
        raise UserError(f"the adapter does not fit this model: {error}") from error
    finally:
        config.trainable_token_indices = tokens
    add_token_rows(model, name, ids)
    return model


def _peft_config(model: CausalLM) -> peft.LoraConfig:
    configs = getattr(model, "peft_config", None)
    if not configs:
        raise UserError("the model has no LoRA adapters to save")
    return configs[_ADAPTER]


def _adapter_parameters(model: CausalLM, adapter: str = _ADAPTER) -> list[tuple[str, Tensor]]:
    return [
        (name, p)
        for name, p in model.named_parameters()
        if (".lora_" in name and f".{adapter}." in name) or name.endswith(PARAMETER + adapter)
    ]


def _stored_name(parameter: str, adapter: str) -> str:
    """PEFT's name on disk: without the adapter's, and for DoRA's lengths without `.weight`."""
    if parameter.endswith(PARAMETER + adapter):
        return _PREFIX + parameter.removesuffix(f".{adapter}")
    name = _PREFIX + parameter.replace(f".{adapter}.", ".")
    return name.removesuffix(".weight") if ".lora_magnitude_vector." in name else name


def _read_config(directory: Path) -> peft.LoraConfig:
    file = directory / _CONFIG_FILE
    if not file.is_file():
        raise UserError(f"{file} does not exist; {directory} is not a LoRA adapter folder")
    try:
        config = peft.PeftConfig.from_pretrained(str(directory))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file} is not a PEFT configuration: {error}") from error
    if not isinstance(config, peft.LoraConfig):
        raise UserError(f"{file}: only LoRA adapters are supported, not {config.peft_type}")
    return config
