"""Checkpoint folders in the Hugging Face layout: configuration, model.safetensors and tokenizer files.

A folder that we write is a stock folder of its class (config.CLASSES) for transformers 4.57 and 5; a
folder of those classes from anywhere is read, sharded or not. Tensors are read from safetensors only:
nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.config import CLASSES, config_to_hf, load_model_config, load_quantization
from mengya.models.hf.weight_files import StoredTensors, weight_files
from mengya.runtime.training_data import copy_training_data
from mengya.tokenizer.added import read_added
from mengya.tokenizer.load import (
    copy_tokenizer,
    document_token_id,
    load_tokenizer,
    stop_token_ids,
    tokenizer_hash,
)


def save_hf_folder(
    source: nn.Module | Mapping[str, Tensor],
    config: ModelConfig,
    directory: Path,
    dtype: torch.dtype | None = None,
    *,
    bos_token_id: int | None = None,
    eos_token_id: int | list[int] | None = None,
    pad_token_id: int | None = None,
) -> None:
    """Write config.json, generation_config.json and model.safetensors into `directory`.

    Args:
        source: the model or its state dict (names as in `CausalLM`; adapters merged before).
        dtype: of the saved tensors; None keeps each tensor's own.
        bos_token_id, eos_token_id, pad_token_id: written for transformers' generate().
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = dict(saved_tensors(source, config, dtype))
    stored = dtype or next(iter(tensors.values())).dtype
    special = {
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_id,
        "pad_token_id": pad_token_id,
    }
    _write_configs({**config_to_hf(config, stored), **special}, special, directory)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def write_configs(
    config: ModelConfig,
    dtype: torch.dtype,
    tokenizer_folder: Path,
    directory: Path,
    more: Mapping[str, Any],
) -> None:
    """config.json, with `more` in it, and generation_config.json."""
    special = _special_ids(load_tokenizer(tokenizer_folder))
    _write_configs({**config_to_hf(config, dtype), **special, **more}, special, directory)


def write_folder(
    model: CausalLM,
    tokenizer: PreTrainedTokenizerFast,
    tokenizer_folder: Path,
    dtype: torch.dtype,
    directory: Path,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write config, weights, generation settings and tokenizer: all that transformers needs.

    Args:
        tensors: a copy of the model's state dict to write, taken earlier; None takes its own.
    """
    source = model if tensors is None else tensors
    save_hf_folder(source, model.config, directory, dtype, **_special_ids(tokenizer))
    copy_tokenizer_files(tokenizer_folder, directory)


def copy_tokenizer_files(tokenizer_folder: Path, directory: Path) -> None:
    """The tokenizer, and what its folder says of tokens added by `mengya extend`, as trained, and of the
    data that the model learned from."""
    copy_tokenizer(tokenizer_folder, directory)
    copy_training_data(tokenizer_folder, directory)
    if added := read_added(tokenizer_folder):
        added.trained().write(directory)


def load_causal_lm(
    directory: Path | str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    config: ModelConfig | None = None,
) -> CausalLM:
    """Build the model that a folder describes, in training mode.

    Args:
        config: instead of the folder's own, such as one with a longer context.

    Raises:
        UserError: folder or file missing, damaged, of a class or feature not supported, or holding
            other tensors than its config.json says.
    """
    directory = Path(directory)
    stored = load_model_config(directory)
    refuse_quantized(directory)
    config = config or stored
    model = materialize(CausalLM(config, device="meta"), device, dtype)
    new_rope = config.rope_parameters.rope_type != stored.rope_parameters.rope_type
    fill(model, StoredTensors(directory), new_rope=new_rope)
    return model


def materialize(model: CausalLM, device: torch.device | str, dtype: torch.dtype) -> CausalLM:
    """The same module with memory in the place of the meta device; `fill` gives it values."""
    model.to(dtype).to_empty(device=device)
    model.tie_weights()
    model.expert_load.zero_()  # the only buffer that no file fills
    if model.model.learned_rope is not None:
        model.model.learned_rope.reset_parameters()
    return model


@torch.no_grad()
def load_weights(model: CausalLM, directory: Path, master: Mapping[str, Tensor] | None) -> None:
    """Read a checkpoint of the same shape into the parameters of `model`.

    Args:
        master: fp32 weights by parameter name, in place of those of the folder.

    Raises:
        UserError: as `load_causal_lm`.
    """
    fill(model, StoredTensors(directory))
    places = model.state_dict()
    for name, tensor in (master or {}).items():
        places[name].copy_(tensor)


def weights_sha256(directory: Path | str) -> str:
    """SHA-256 of the weight files of a folder; every byte is read once a process, unless a file changes.

    Raises:
        UserError: as `load_causal_lm`.
    """
    digest = hashlib.sha256()
    for path in weight_files(Path(directory)):
        try:
            stat = path.stat()
            digest.update(_file_sha256(path.resolve(), stat.st_size, stat.st_mtime_ns))
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error}); copy it again") from error
    return digest.hexdigest()


def checkpoint_sha256(folder: Path, weights: bool = True) -> str:
    """SHA-256 of the tokenizer, config.json and, unless a caller needs no more, the weights.

    Raises:
        UserError: as `load_causal_lm`; a tokenizer that cannot be read.
    """
    digest = hashlib.sha256(tokenizer_hash(folder).encode())
    if (folder / "config.json").is_file():
        digest.update((folder / "config.json").read_bytes())
    if weights:
        digest.update(weights_sha256(folder).encode())
    return digest.hexdigest()


@cache
def _file_sha256(path: Path, size: int, changed_ns: int) -> bytes:
    """Size and time are for the cache: a run hashes its base when it pins it and again for adapters."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def check_vocabulary(model: CausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuse a tokenizer whose ids the model has no rows for."""
    if len(tokenizer) > model.config.vocab_size:
        raise UserError(
            f"the tokenizer has {len(tokenizer)} ids, the model {model.config.vocab_size} rows; "
            f"write model.vocab_size={len(tokenizer)} (or more), or name the model's own tokenizer"
        )


def check_finite(model: CausalLM, folder: Path | str) -> None:
    """Refuse a model that can only compute NaN."""
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(
                f"{folder}: {name} holds NaN or infinity, the model is broken; use an earlier checkpoint, or "
                "copy it again"
            )


def _special_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    pad = tokenizer.pad_token_id
    return {
        "bos_token_id": document_token_id(tokenizer),
        "eos_token_id": stop_token_ids(tokenizer),
        "pad_token_id": pad if isinstance(pad, int) else None,
    }


def _write_configs(values: Mapping[str, Any], special: Mapping[str, Any], directory: Path) -> None:
    generation = {name: value for name, value in special.items() if value is not None}
    write_json(directory / "config.json", values)
    write_json(directory / "generation_config.json", generation)


def saved_tensors(
    source: nn.Module | Mapping[str, Tensor], config: ModelConfig, dtype: torch.dtype | None
) -> Iterator[tuple[str, Tensor]]:
    """Tensors under their names on disk: experts one by one, a tied output layer left out."""
    tensors = source.state_dict() if isinstance(source, nn.Module) else source
    for name, tensor in tensors.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        # A rounded bias would send tokens to other experts; transformers keeps it in fp32 as well.
        own = name.endswith("e_score_correction_bias")
        value = tensor.detach().to("cpu", tensor.dtype if own else dtype)
        if not _is_stacked(name):
            yield name, value.contiguous()
            continue
        prefix, part = name.rsplit(".", 1)
        for e, expert in enumerate(value):
            if part == "down_proj":
                yield f"{prefix}.{e}.down_proj.weight", expert.clone()
                continue
            gate, up = expert.chunk(2)
            yield f"{prefix}.{e}.gate_proj.weight", gate.clone()
            yield f"{prefix}.{e}.up_proj.weight", up.clone()


@torch.no_grad()
def fill(
    model: CausalLM, tensors: StoredTensors, *, new_rope: bool = False, done: Collection[str] = ()
) -> None:
    """Copy every tensor of a folder to its parameter; each must be filled once.

    Args:
        new_rope: learned frequencies were added to the model just now, and need not be there.
        done: what is filled, or read, elsewhere.

    Raises:
        UserError: as `load_causal_lm`.
    """
    directory = tensors.directory
    places = {name: place for name, place in tensor_places(model).items() if name not in done}
    all_names, unknown = set(places), []
    for name in tensors:
        if name in done:
            continue
        place = places.pop(name, None)
        if place is not None:
            tensor = tensors[name]
            if place.shape != tensor.shape:
                raise UserError(
                    f"{tensors.file_of(name)}: {name} has shape {list(tensor.shape)}, but config.json "
                    f"says {list(place.shape)}; the files are of different models"
                )
            place.copy_(tensor)
        elif not _ignored(name, model.config):
            unknown.append(name)
    if unknown:
        raise UserError(
            f"{directory}: {len(unknown)} tensors that {CLASSES[model.config.model_type]} does not "
            f"have, such as {unknown[0]}; is it an adapter, or config.json of another model?"
        )
    if new_rope:
        places = {
            n: p
            for n, p in places.items()
            if not n.startswith(f"model.{model.config.rope_parameters.rope_type}.")
        }
    missing = _without_alternatives(places, all_names)
    if missing:
        raise UserError(
            f"{directory}: {len(missing)} tensors are missing, such as {missing[0]}; the folder is "
            "incomplete, copy it again"
        )


def tensor_places(model: CausalLM) -> dict[str, Tensor]:
    """Where each tensor name on disk goes; experts both one by one and stacked (either is read)."""
    saved = model.state_dict().keys()
    places: dict[str, Tensor] = {n: buffer for n, buffer in model.named_buffers() if n in saved}
    for name, parameter in model.named_parameters():  # a tied output layer appears once
        places[name] = parameter
        if not _is_stacked(name):
            continue
        prefix, part = name.rsplit(".", 1)
        for e, expert in enumerate(parameter):
            if part == "down_proj":
                places[f"{prefix}.{e}.down_proj.weight"] = expert
            else:
                gate, up = expert.chunk(2)
                places[f"{prefix}.{e}.gate_proj.weight"] = gate
                places[f"{prefix}.{e}.up_proj.weight"] = up
    return places


def _is_stacked(name: str) -> bool:
    """Whether a tensor is that of all experts; of a single one it ends in .weight."""
    return ".mlp.experts." in name and not name.endswith(".weight")


def _without_alternatives(left: dict[str, Tensor], all_names: Collection[str]) -> list[str]:
    """Names that are really missing: stacked experts are filled if all single ones were, or vice versa."""
    missing = []
    for name in left:
        if ".mlp.experts." not in name:
            missing.append(name)
            continue
        prefix, after = name.split(".mlp.experts.")
        single = after.endswith(".weight")
        down = "down_proj" in after
        stacked = f"{prefix}.mlp.experts.{'down_proj' if down else 'gate_up_proj'}"
        if single and (stacked in left or stacked not in all_names):
            missing.append(name)
    return missing


def _ignored(name: str, config: ModelConfig) -> bool:
    tied = name == "lm_head.weight" and config.tie_word_embeddings
    # Glm4Moe and DeepseekV3 keep heads for further tokens in layers after the last one.
    layer = re.match(r"model\.layers\.(\d+)\.", name)
    with_heads = config.model_type in ("glm4_moe", "deepseek_v3")
    ahead = with_heads and layer is not None and int(layer[1]) >= config.num_hidden_layers
    return tied or ahead or name.endswith("rotary_emb.inv_freq")


def refuse_quantized(directory: Path) -> None:
    """
    Raises:
        UserError: the folder's weights are quantized; `open_checkpoint` loads them, for use alone.
    """
    values = load_quantization(directory)
    if values is not None:
        raise UserError(
            f"{directory} is quantized ({values.get('quant_method')}): its weights can be used, but not "
            "trained, merged or extended. Give the full checkpoint that it was made from, and quantize what "
            "comes out; lora.base_4bit=true trains an adapter on a full checkpoint that it makes small itself"
        )


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """A file as people read it."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
