"""`mengya parameters`: the sizes of the models of recipes, counted on the meta device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from mengya.config import load_config
from mengya.errors import UserError
from mengya.models.cache.kv import cache_bytes_per_token
from mengya.models.hf.config import CLASSES
from mengya.planning.sizes import ParameterCounts, parameter_counts
from mengya.stages.pretrain import PretrainConfig


class RecipeSize(NamedTuple):
    """The model of one recipe; `cache_bytes`: bytes of a token in a bf16 KV cache."""

    recipe: str
    class_name: str
    counts: ParameterCounts
    cache_bytes: int


def run(recipes: Sequence[Path]) -> None:
    """Print a table of `recipes` (files, or folders with a pretrain.yaml); none: all of recipes/.

    Raises:
        UserError: there is no recipe, or `measure` refuses one.
    """
    paths = list(recipes) or sorted(Path("recipes").glob("*/pretrain.yaml"))
    if not paths:
        raise UserError("no recipes/*/pretrain.yaml in this folder; name a recipe")
    # Narrow enough that no number is cut in a terminal of 80 columns.
    table = Table("recipe", "class", box=None, collapse_padding=True, pad_edge=False)
    for column in ("total", "active", "embedding", "KV bytes"):
        table.add_column(column, justify="right", no_wrap=True)
    for path in paths:
        row = measure(path)
        counts = (f"{number:,}" for number in (*row.counts, row.cache_bytes))
        table.add_row(row.recipe, row.class_name, *counts)
    console = Console()
    console.print(table)
    console.print("KV bytes: of one token in a bf16 cache.", style="dim")


def measure(recipe: Path) -> RecipeSize:
    """Build the model of one recipe on the meta device and count.

    Raises:
        UserError: the recipe is not valid, or starts from a checkpoint (init_from) and has no model.
    """
    path = recipe / "pretrain.yaml" if recipe.is_dir() else recipe
    config = load_config(PretrainConfig, path).model
    if config is None:
        raise UserError(
            f"{path} starts from init_from and names no model; name a recipe with a model"
        )
    name = path.parent.name if path.name == "pretrain.yaml" else str(path)
    class_name = CLASSES[config.model_type].removesuffix("ForCausalLM")
    return RecipeSize(name, class_name, parameter_counts(config), cache_bytes_per_token(config))
