"""mengya (萌芽): grow a small Chinese language model from nothing.

    import mengya

    model = mengya.load("runs/my/sft")
    print(model.chat("你好"))

From text to a model: `get_data`, `train_tokenizer`, `prepare`, `pretrain`, `sft`, `dpo`, `evaluate`,
`quantize`, `export_model`. They take the recipes and keys of the commands of the same names;
examples/train_in_python.py calls them in order. Errors that the caller can fix are `UserError`. Nothing
heavy is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mengya.errors import UserError
from mengya.version import __version__

if TYPE_CHECKING:
    from mengya.api import (
        Model,
        TrainingRun,
        dpo,
        evaluate,
        export_model,
        get_data,
        load,
        prepare,
        pretrain,
        quantize,
        sft,
        train_tokenizer,
    )

__all__ = [
    "Model",
    "TrainingRun",
    "UserError",
    "__version__",
    "dpo",
    "evaluate",
    "export_model",
    "get_data",
    "load",
    "prepare",
    "pretrain",
    "quantize",
    "sft",
    "train_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("mengya.api"), name)
    raise AttributeError(f"module 'mengya' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
