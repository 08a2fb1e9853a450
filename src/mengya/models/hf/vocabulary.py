"""More rows for the embedding and the output layer of a trained model.

Takes a model and, for each new id, the old ids of the same text; gives a larger model. A new row is the
mean of theirs, so it starts near its meaning (Hewitt 2021, "Initializing new word embeddings"). Logits of
old ids on old ids stay as they were.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mengya.models.causal_lm import CausalLM


@torch.no_grad()
def extend_vocabulary(model: CausalLM, first_id: int, old_ids: Sequence[Sequence[int]]) -> CausalLM:
    """A model whose ids from `first_id` on are new; rows that were there unused are taken over.

    Args:
        old_ids: for each new id, in order, at least one id below `first_id`.
    """
    rows = max(model.config.vocab_size, first_id + len(old_ids))
    config = model.config.model_copy(update={"vocab_size": rows})
    larger = CausalLM(config, device="meta").to_empty(device=model.lm_head.weight.device)
    larger.to(model.lm_head.weight.dtype)
    larger.tie_weights()
    larger.expert_load.zero_()
    state = model.state_dict()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = _more_rows(state[name], rows, first_id, old_ids)
    larger.load_state_dict(state)
    return larger.train(model.training)


def _more_rows(
    weight_VH: Tensor, rows: int, first_id: int, old_ids: Sequence[Sequence[int]]
) -> Tensor:
    wider = weight_VH.new_zeros(rows, weight_VH.shape[1])
    wider[: len(weight_VH)] = weight_VH
    for number, ids in enumerate(old_ids):
        wider[first_id + number] = weight_VH[list(ids)].float().mean(0).to(wider.dtype)
    return wider
