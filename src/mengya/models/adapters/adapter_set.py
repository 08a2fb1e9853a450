"""Several LoRA adapters over one base, one of them, or none, computing at a time.

Takes a `CausalLM` and adapter folders as PEFT writes them; gives a switch. Knows nothing of requests.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

from mengya.errors import UserError
from mengya.models.adapters.lora import load_adapter, lora_layers
from mengya.models.adapters.token_rows import select_token_rows
from mengya.models.causal_lm import CausalLM
from mengya.models.quantized.layers import number_names


class AdapterSet:
    """Loads the adapters into `model`, in place; at first none of them computes.

    Attributes:
        current: name of the adapter that computes now, None for the base alone.

    Raises:
        UserError: a folder that is no adapter, or one for a model of another shape; a quantized base.
    """

    def __init__(self, model: CausalLM, folders: Mapping[str, Path]) -> None:
        if number_names(model):
            raise UserError(
                "adapters: the base is quantized, and adapters need its full weights; serve the full base, "
                "or merge an adapter into it (mengya merge ADAPTER out=FOLDER) and quantize that"
            )
        self.current: str | None = None
        # PEFT makes its names part of parameter names, where not every name is allowed.
        self._inner = {name: f"served_{number}" for number, name in enumerate(folders)}
        dtype, device = model.lm_head.weight.dtype, model.lm_head.weight.device
        with warnings.catch_warnings():
            # Silences PEFT's warning about the second adapter.
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            for name, folder in folders.items():
                load_adapter(model, folder, self._inner[name])
        model.to(device, dtype).requires_grad_(False).eval()
        self._layers = [layer for _, layer in lora_layers(model)]
        for layer in self._layers:
            layer.enable_adapters(False)
        self._model = model
        select_token_rows(model, None)

    def select(self, name: str | None) -> None:
        """Let this adapter compute, alone; None: the base.

        Raises:
            UserError: no adapter of that name was loaded.
        """
        if name == self.current:
            return
        if name is not None and name not in self._inner:
            raise UserError(f"no adapter is named {name!r}; loaded: {', '.join(self._inner)}")
        for layer in self._layers:
            if name is not None:
                # A layer that this adapter leaves alone passes its input through to the base.
                layer.set_adapter(self._inner[name])
            if (name is None) != (self.current is None):
                layer.enable_adapters(name is not None)
        select_token_rows(self._model, None if name is None else self._inner[name])
        self.current = name
