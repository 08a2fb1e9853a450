"""What config.json says of a model whose weights are rounded in training; its files hold the full weights.

A dense ternary model is what transformers calls BitNet with `quantization_mode` online: its AutoBitLinear
rounds full weights at every call as we do. transformers has nothing of the kind for integers or for experts;
their settings stand under a key of ours, which it keeps and ignores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mengya.models.config.model import ModelConfig

KEY = "trained_quantization"
_BITNET = {
    "quant_method": "bitnet",
    "linear_class": "autobitlinear",
    "quantization_mode": "online",
    "use_rms_norm": False,
    "modules_to_not_convert": ["lm_head"],
}
_MEANS_ONLINE = ("quant_method", "linear_class", "quantization_mode")


def quantization_to_hf(config: ModelConfig) -> dict[str, Any]:
    """The keys of config.json; {} for full weights."""
    if config.quantization is None:
        return {}
    if config.quantization.number == "ternary" and not config.num_experts:
        return {"quantization_config": dict(_BITNET)}
    return {KEY: config.quantization.model_dump(mode="json")}


def quantization_from_hf(values: Mapping[str, Any]) -> Any:
    """The field `quantization` of a `ModelConfig`, not yet checked; None for full weights."""
    return "ternary" if is_online_bitnet(values) else values.get(KEY)


def is_online_bitnet(values: Mapping[str, Any]) -> bool:
    """Whether the folder holds full weights that are to be rounded to ternary at every call."""
    found = values.get("quantization_config")
    if not isinstance(found, Mapping) or found.get("use_rms_norm"):
        return False
    return all(found.get(name) == _BITNET[name] for name in _MEANS_ONLINE)
