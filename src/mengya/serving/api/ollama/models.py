"""What there is to ask for, in the form of ollama's API: /api/tags, /api/show, /api/version."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel

from mengya.serving.api.ollama.reply import iso_time
from mengya.serving.runtime.model_facts import ModelFacts
from mengya.serving.runtime.served_models import ModelEntry, ServedModels
from mengya.serving.settings import SamplingDefaults
from mengya.version import __version__

API_VERSION = "0.12.11"  # of ollama: its first with every field that is taken here
LATEST = ":latest"


class Details(BaseModel):
    parent_model: str = ""
    format: str = "safetensors"
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class Tag(BaseModel):
    """One model; the digest is that of its configuration and name, not of its weights."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class Tags(BaseModel):
    models: list[Tag]


class Shown(BaseModel):
    modelfile: str
    parameters: str
    template: str
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class Version(BaseModel):
    """`version` is the one of ollama's API that is followed; clients refuse servers by it."""

    version: str = API_VERSION
    mengya: str = __version__


def own_name(models: ServedModels, name: str) -> str:
    """A model's name here: ollama's clients may write :latest after it.

    Raises:
        ApiError: 404 for unknown names, 503 while the base is loading, or when the server ends.
    """
    names = {entry.name for entry in models.entries()}
    if name.endswith(LATEST) and name not in names:
        name = name.removesuffix(LATEST)
    return models.entry(name).name


def tag(entry: ModelEntry, started: int) -> Tag:
    """A line of the list of models.

    Args:
        started: seconds since 1970, in place of when a model was changed.
    """
    facts = entry.facts
    said = json.dumps([entry.name, facts.config.model_dump(mode="json")], sort_keys=True)
    return Tag(
        name=entry.name,
        model=entry.name,
        modified_at=iso_time(started),
        size=facts.size,
        digest=hashlib.sha256(said.encode()).hexdigest(),
        details=_details(facts),
    )


def shown(entry: ModelEntry, sampling: SamplingDefaults, started: int) -> Shown:
    """What is known of a model, in memory or not."""
    facts, config = entry.facts, entry.facts.config
    template = "" if entry.kind == "base" else facts.template
    abilities = ["completion"]
    abilities += ["tools"] if "tools" in template else []
    abilities += ["thinking"] if "enable_thinking" in template else []
    family = config.model_type
    return Shown(
        modelfile=f"# mengya {__version__}\nFROM {entry.name}",
        parameters="\n".join(f"{key} {value}" for key, value in sampling.model_dump().items()),
        template=template,
        details=_details(facts),
        model_info={
            "general.architecture": family,
            "general.basename": entry.name,
            "general.parameter_count": facts.parameters,
            f"{family}.context_length": entry.context,
            f"{family}.embedding_length": config.hidden_size,
            f"{family}.block_count": config.num_hidden_layers,
            f"{family}.attention.head_count": config.num_attention_heads,
            f"{family}.attention.head_count_kv": config.num_key_value_heads,
            f"{family}.vocab_size": config.vocab_size,
        },
        capabilities=abilities,
        modified_at=iso_time(started),
    )


def _details(facts: ModelFacts) -> Details:
    family = facts.config.model_type
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    return Details(
        family=family,
        families=[family],
        parameter_size=_short(facts.parameters),
        quantization_level=names.get(facts.numbers, facts.numbers.upper()),
    )


def _short(count: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)
