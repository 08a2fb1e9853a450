"""What there is to ask for, in the form of ollama's API: /api/tags, /api/show, /api/version."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from pydantic import BaseModel

from mengya.models.causal_lm import CausalLM
from mengya.serving.api.ollama.reply import iso_time
from mengya.serving.runtime.service import Service
from mengya.tokenizer.chat_template import chat_template_of
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


def own_name(service: Service, name: str) -> str:
    """A model's name here: ollama's clients may write :latest after it.

    Raises:
        ApiError: 404 for unknown names, 503 while there is no model.
    """
    if name.endswith(LATEST) and name not in service.served().names:
        name = name.removesuffix(LATEST)
    service.named(name)
    return name


def tags(service: Service) -> Tags:
    """All models."""
    return Tags(models=[_tag(service, name) for name in service.served().names])


def show(service: Service, name: str) -> Shown:
    """One of them."""
    served, named = service.served(), service.named(name)
    config, is_chat = served.model.config, named.kind == "chat"
    template = chat_template_of(served.tokenizer) if is_chat else ""
    sampling = service.settings.sampling.model_dump()
    abilities = ["completion"]
    abilities += ["tools"] if "tools" in template else []
    abilities += ["thinking"] if "enable_thinking" in template else []
    family = config.model_type
    return Shown(
        modelfile=f"# mengya {__version__}\nFROM {name}",
        parameters="\n".join(f"{key} {value}" for key, value in sampling.items()),
        template=template,
        details=_details(served.model),
        model_info={
            "general.architecture": family,
            "general.basename": name,
            "general.parameter_count": _parameter_count(served.model),
            f"{family}.context_length": served.context,
            f"{family}.embedding_length": config.hidden_size,
            f"{family}.block_count": config.num_hidden_layers,
            f"{family}.attention.head_count": config.num_attention_heads,
            f"{family}.attention.head_count_kv": config.num_key_value_heads,
            f"{family}.vocab_size": config.vocab_size,
        },
        capabilities=abilities,
        modified_at=iso_time(service.started),
    )


def _tag(service: Service, name: str) -> Tag:
    model = service.served().model
    said = json.dumps([name, model.config.model_dump(mode="json")], sort_keys=True)
    return Tag(
        name=name,
        model=name,
        modified_at=iso_time(service.started),
        size=sum(one.numel() * one.element_size() for one in model.parameters()),
        digest=hashlib.sha256(said.encode()).hexdigest(),
        details=_details(model),
    )


def _parameter_count(model: CausalLM) -> int:
    return sum(one.numel() for one in model.parameters())


def _details(model: CausalLM) -> Details:
    family = model.config.model_type
    dtype = re.sub(r"^torch\.", "", str(next(model.parameters()).dtype))
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    return Details(
        family=family,
        families=[family],
        parameter_size=_short(_parameter_count(model)),
        quantization_level=names.get(dtype, dtype),
    )


def _short(count: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)
