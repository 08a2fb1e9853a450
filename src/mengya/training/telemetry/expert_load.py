"""The load of experts in training: sums it over ranks, moves the routers' biases, reports and warns.

Takes a model that counts (`CausalLM`, alone or inside another module) and an all-reduce; gives numbers
for the log. The loads stay on the device until a line is logged. Does nothing for a model
without experts.
Shapes: L layers with experts, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mengya.models.causal_lm import CausalLM

PREFIX = "experts"
_DEAD = 0.01  # of an even share


class ExpertLoad:
    """What happened to the tokens of the steps since the last report.

    Args:
        all_reduce: sums a tensor on the model's device over all ranks.
    """

    def __init__(self, model: nn.Module, all_reduce: Callable[[Tensor], Tensor]) -> None:
        models = (module for module in model.modules() if isinstance(module, CausalLM))
        model_or_none = next(models, None)
        self._model = model_or_none if model_or_none and model_or_none.config.num_experts else None
        self._all_reduce = all_reduce
        self._dead: list[tuple[int, int]] = []
        if self._model is not None:
            self._first_layer = self._model.config.first_k_dense_replace
            self._window_LE = torch.zeros_like(self._model.expert_load)

    def after_step(self, applied: bool | Tensor) -> None:
        """Add the step's load, without waiting for the device.

        Args:
            applied: whether the step was; a bool tensor may stay on the device. A step that was not
                counts as no load, which moves no bias and is not reported.
        """
        if self._model is None:
            return
        load_LE = self._all_reduce(self._model.take_expert_load() * applied)
        self._model.move_router_biases(load_LE)
        self._window_LE += load_LE

    def report(self, say: Callable[[str], None]) -> dict[str, float]:
        """Numbers by layer since the last report; a warning when the set of experts without tokens changes.

        `experts/layer3/2` is expert 2's share of the layer's choices; entropy is 1 when even.
        """
        if self._model is None:
            return {}
        window_LE = self._window_LE.to("cpu", torch.float64)
        self._window_LE.zero_()
        if not window_LE.any():
            return {}
        shares_LE = window_LE / window_LE.sum(1, keepdim=True)
        E = shares_LE.shape[1]
        entropy_L = torch.special.entr(shares_LE).sum(1) / math.log(E) if E > 1 else torch.ones(1)
        values = {}
        for number, shares in enumerate(shares_LE.tolist()):
            name = f"{PREFIX}/layer{number + self._first_layer}"
            values[f"{name}/entropy"] = round(entropy_L[number].item(), 4)
            values[f"{name}/min_share"] = round(min(shares), 5)
            values[f"{name}/max_share"] = round(max(shares), 5)
            values |= {f"{name}/{e}": round(share, 5) for e, share in enumerate(shares)}
        dead = [(int(layer), int(e)) for layer, e in (shares_LE * E < _DEAD).nonzero().tolist()]
        if dead != self._dead:
            self._dead = dead
            where = ", ".join(f"layer {layer + self._first_layer}: {e}" for layer, e in dead[:8])
            more = f" and {len(dead) - 8} more" if len(dead) > 8 else ""
            say(
                f"experts that get less than {_DEAD:.0%} of an even share: {where}{more}; raise "
                "router_aux_loss_coef or router_bias_update_speed if they stay"
                if dead
                else "all experts receive tokens again"
            )
        return values
