"""The command line: `mengya VERB RECIPE.yaml key.sub=value ...`. Maps verbs to stages, nothing else.

A stage is imported when its verb runs, so that `mengya --help` is fast.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.padding import Padding
from rich.status import Status
from rich.text import Text
from typer.core import TyperGroup

from mengya import __version__
from mengya.config import Config, is_list, load_config
from mengya.errors import UserError, user_message
from mengya.runtime.config_keys import describe, recipe_schema
from mengya.text.visible import visible

_SECONDS_FOR_RANK_0 = 10.0
_ABOUT = "Grow a small Chinese language model from nothing."


class _InOrder(TyperGroup):
    """The verbs in the order of VERBS, those that are groups too; then the others."""

    def list_commands(self, ctx: Any) -> list[str]:
        first = [name.split()[0] for name in VERBS]
        return sorted(
            self.commands, key=lambda name: first.index(name) if name in first else len(first)
        )


app = typer.Typer(
    cls=_InOrder,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=_ABOUT,
)


class Verb(NamedTuple):
    """A stage with a configuration: module `mengya.stages.NAME` with `run` and the class `config`.

    The name of a verb in a group is two words, and its module lies in the package of the group.

    Attributes:
        positional: the key that an argument before the recipe sets, or several where it is a list; None
            without one.
        module: of a verb that has the name of its group.
    """

    config: str
    summary: str
    positional: str | None = None
    module: str | None = None


VERBS = {
    "tokenizer": Verb("TokenizerConfig", "Train, convert and compare tokenizers.", module="train"),
    "tokenizer convert": Verb(
        "TokenizerConvertConfig", "Convert a .model or .tiktoken file to a folder.", "file"
    ),
    "tokenizer compare": Verb(
        "TokenizerCompareConfig", "Compare tokenizers on text.", "tokenizers"
    ),
    "tokenizer count": Verb("TokenizerCountConfig", "Count the tokens of files.", "tokenizer"),
    "data list": Verb("DataListConfig", "List the public data sets that are known by name."),
    "data show": Verb("DataShowConfig", "Show what is known of a public data set.", "name"),
    "data get": Verb("DataGetConfig", "Download a public data set, or a part of it.", "name"),
    "synth": Verb(
        "SynthConfig", "Make conversations from documents or seeds, through any endpoint."
    ),
    "identity": Verb("IdentityConfig", "Make conversations in which a model says who it is."),
    "prepare": Verb("PrepareConfig", "Turn documents into token shards."),
    "inspect": Verb("InspectConfig", "Look at the samples of token shards.", "shards"),
    "pretrain": Verb("PretrainConfig", "Train a model from scratch, or continue one, on text."),
    "sft": Verb("SftConfig", "Fine-tune on conversations; all weights or LoRA."),
    "dpo": Verb("DpoConfig", "Align a model with preference pairs."),
    "merge": Verb("MergeConfig", "Merge a LoRA adapter into a standard folder.", "checkpoint"),
    "quantize": Verb("QuantizeConfig", "Store a model in 2 to 8 bits a weight.", "checkpoint"),
    "extend": Verb("ExtendConfig", "Add tokens to a model and its tokenizer.", "checkpoint"),
    "export": Verb(
        "ExportConfig",
        "Write a checkpoint in another format, and prove that it is the same model.",
        "checkpoint",
    ),
    "evaluate": Verb("EvaluateConfig", "Measure a checkpoint.", "checkpoint"),
    "judge": Verb("JudgeConfig", "Have a model judge which of two answers better.", "sides"),
