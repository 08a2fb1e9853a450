"""Trained rows of embedding and output layer in a `CausalLM`: PEFT's `trainable_token_indices`.

Takes a model and token ids; puts the layers of models/token_row_layers.py in place of its own, switches them
between adapters, and writes them into the weights. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.models.token_row_layers import RowsEmbedding, RowsLinear, TokenRows

EMBEDDING, OUTPUT = "embed_tokens", "lm_head"
PARAMETER = ".trainable_tokens_delta."  # in the name of every such parameter

TokenIds = Mapping[str, Sequence[int]]
"""Layer (EMBEDDING, OUTPUT) -> ids whose rows are trained; tied layers are one, named EMBEDDING."""


def add_token_rows(model: CausalLM, name: str, ids: TokenIds) -> None:
    """Give adapter `name` trained rows, and let it compute; at first they change nothing.

    Raises:
        UserError: the output layer has an adapter of another kind.
    """
    tied = model.config.tie_word_embeddings
    if not tied and OUTPUT in ids and not isinstance(model.lm_head, RowsLinear):
        if type(model.lm_head) is not nn.Linear:
            raise UserError(
                "the output layer cannot have trained token rows and an adapter of its own: leave lm_head "
                "out of lora.targets, or write lora.trainable_tokens=null"
            )
        model.lm_head = RowsLinear(model.lm_head, None)
    if EMBEDDING in ids and not isinstance(model.model.embed_tokens, RowsEmbedding):
        model.model.embed_tokens = RowsEmbedding(model.model.embed_tokens)
        if tied:
            model.lm_head = RowsLinear(model.lm_head, model.model.embed_tokens.token_adapter)
    layers = {EMBEDDING: model.model.embed_tokens, OUTPUT: model.lm_head}
    for layer, chosen in ids.items():
        module = layers[layer]
        assert isinstance(module, RowsEmbedding | RowsLinear)
        module.token_adapter.add(name, chosen, module.weight)
    select_token_rows(model, name)


def token_rows(model: nn.Module) -> Iterator[TokenRows]:
    """Those of every matrix that has some."""
    return (module for module in model.modules() if isinstance(module, TokenRows))


def select_token_rows(model: nn.Module, name: str | None) -> None:
    """Let the rows of this adapter compute, where it has any; None: the frozen ones."""
    for rows in token_rows(model):
        rows.current = name


def trained_rows(model: nn.Module) -> int:
    """How many rows are trained; tied layers count once."""
    return sum(len(p) for rows in token_rows(model) for p in rows.parameters() if p.requires_grad)


@torch.no_grad()
def merge_token_rows(model: CausalLM) -> None:
    """Write the rows that compute into the weights, and put ordinary layers back."""
    if isinstance(model.model.embed_tokens, RowsEmbedding):
        model.model.embed_tokens = model.model.embed_tokens.plain()
    if isinstance(model.lm_head, RowsLinear):
        model.lm_head = model.lm_head.plain()
    model.tie_weights()


def to_peft(ids: Sequence[int], tied: bool) -> list[int] | dict[str, list[int]] | None:
    """PEFT's `trainable_token_indices` for rows of the embedding and the output layer."""
    if not ids:
        return None
    return list(ids) if tied else {EMBEDDING: list(ids), OUTPUT: list(ids)}


def from_peft(value: list[int] | dict[str, list[int]] | None, model: CausalLM) -> TokenIds:
    """The rows that a `trainable_token_indices` means in this model.

    Raises:
        UserError: ids that the model has no rows for, layers other than these two, or tied layers that
            are to have different rows.
    """
    found: dict[str, list[int]] = {}
    for name, ids in (value if isinstance(value, dict) else {EMBEDDING: value or []}).items():
        layer = name.rpartition(".")[2]
        if layer not in (EMBEDDING, OUTPUT):
            raise UserError(
                f"trainable_token_indices names the layer {name!r}; this model has {EMBEDDING} and {OUTPUT}"
            )
        if ids:
            found[layer] = ids
    V = model.config.vocab_size
    if wrong := [i for ids in found.values() for i in ids if not 0 <= i < V]:
        raise UserError(
            f"the adapter has a trained row for token {wrong[0]}, this model has the rows 0 to {V - 1}; name "
            "the base that it was trained on (for new tokens the folder that `mengya extend` wrote)"
        )
    if model.config.tie_word_embeddings and OUTPUT in found:
        if found != {EMBEDDING: found[OUTPUT], OUTPUT: found[OUTPUT]}:
            raise UserError(
                f"trainable_token_indices gives {EMBEDDING} and {OUTPUT} different rows, but they are one "
                "matrix in this model (tie_word_embeddings)"
            )
        del found[OUTPUT]
    return found
