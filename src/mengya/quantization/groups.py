"""Which matrices of a decoder layer are quantized, in which order, and where their inputs pass by.

Takes a decoder layer; gives groups. A layer has two halves, attention and feed-forward, each with groups in
the order of its computation. Matrices that multiply the same inputs are one site: they share a Hessian and
are solved as one matrix with their rows one below the other. A group is what is solved from one pass: one
site, or of a mixture a site for every expert.

Routers, the gate of a shared expert, norms, embeddings and the output layer keep their precision.
Shapes: N tokens, T tokens of a site, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mengya.models.attention import Attention
from mengya.models.causal_lm import CausalLM, DecoderLayer
from mengya.models.feed_forward import SwiGLU
from mengya.models.mla import LatentAttention
from mengya.models.moe import Experts, MoE

Rows = Callable[[tuple[Tensor, ...], Tensor], Iterator[tuple[int, Tensor]]]
"""(arguments of a module's forward, real_N) -> (number of a site of the group, its inputs [T, I])."""


@dataclass(frozen=True)
class Matrix:
    """A weight under its name on disk, without `.weight`; `weight_OI` shares the model's memory."""

    name: str
    weight_OI: Tensor


@dataclass(frozen=True)
class Site:
    """Matrices that multiply the same inputs."""

    matrices: tuple[Matrix, ...]

    def weight(self) -> Tensor:
        """A copy of all rows, fp32."""
        return torch.cat([matrix.weight_OI.float() for matrix in self.matrices])

    def rows(self) -> list[int]:
        """Of each matrix."""
        return [len(matrix.weight_OI) for matrix in self.matrices]

    @property
    def inputs(self) -> int:
        return self.matrices[0].weight_OI.shape[1]

    @property
    def device(self) -> torch.device:
        return self.matrices[0].weight_OI.device


@dataclass(frozen=True)
class Watched:
    """A module whose arguments hold the inputs of sites."""

    module: nn.Module
    rows: Rows


@dataclass(frozen=True)
class Group:
    """Sites that are solved from one pass; of the `watched` modules the last one runs last.

    Attributes:
        name: of its matrices, such as `model.layers.0.self_attn.qkv`.
    """

    name: str
    sites: tuple[Site, ...]
    watched: tuple[Watched, ...]

    def matrices(self) -> Iterator[Matrix]:
        for site in self.sites:
            yield from site.matrices


@dataclass(frozen=True)
class Half:
    """Attention or feed-forward of a decoder layer: x + block(norm(x))."""

    norm: nn.Module
    block: nn.Module
    groups: tuple[Group, ...]

    @property
    def is_attention(self) -> bool:
        return isinstance(self.block, Attention | LatentAttention)

    @property
    def is_mixture(self) -> bool:
        return isinstance(self.block, MoE)


def model_groups(model: CausalLM) -> Iterator[Group]:
    """Every group of a model, which may be on the meta device."""
    for number, layer in enumerate(model.model.layers):
        for half in layer_halves(cast(DecoderLayer, layer), number):
            yield from half.groups


def layer_halves(layer: DecoderLayer, number: int) -> tuple[Half, Half]:
    """Both halves of decoder layer `number`."""
    prefix = f"model.layers.{number}"
    attention = layer.self_attn
    if isinstance(attention, LatentAttention):
        groups = _latent_groups(attention, f"{prefix}.self_attn")
    else:
        groups = _attention_groups(cast(Attention, attention), f"{prefix}.self_attn")
    mlp = layer.mlp
    if isinstance(mlp, MoE):
        feed_forward = _mixture_groups(mlp, f"{prefix}.mlp")
    else:
        feed_forward = _dense_groups(mlp, f"{prefix}.mlp")
    return (
        Half(layer.input_layernorm, attention, groups),
        Half(layer.post_attention_layernorm, mlp, feed_forward),
    )


def _attention_groups(attention: Attention, prefix: str) -> tuple[Group, ...]:
    # Watched from outside: on CUDA the three products may be one, which calls no layer.
    return (
        _linear_group(prefix, "qkv", attention, ("q_proj", "k_proj", "v_proj"), attention),
        _linear_group(prefix, "o", attention, ("o_proj",)),
    )


def _latent_groups(attention: LatentAttention, prefix: str) -> tuple[Group, ...]:
    first = ("q_proj",) if attention.q_proj is not None else ("q_a_proj",)
    groups = [_linear_group(prefix, "qkv_a", attention, (*first, "kv_a_proj_with_mqa"), attention)]
    if attention.q_b_proj is not None:
        groups.append(_linear_group(prefix, "q_b", attention, ("q_b_proj",)))
    groups.append(_linear_group(prefix, "kv_b", attention, ("kv_b_proj",)))
    groups.append(_linear_group(prefix, "o", attention, ("o_proj",)))
    return tuple(groups)


def _dense_groups(mlp: SwiGLU, prefix: str) -> tuple[Group, ...]:
    return (
        _linear_group(prefix, "gate_up", mlp, ("gate_proj", "up_proj"), mlp),
        _linear_group(prefix, "down", mlp, ("down_proj",)),
    )


def _linear_group(
    prefix: str,
    name: str,
    parent: nn.Module,
    layers: tuple[str, ...],
    watched: nn.Module | None = None,
) -> Group:
    """Linear layers of `parent` with the same inputs: those of `watched`, or of the first of them."""
    linears = [cast(nn.Linear, getattr(parent, layer)) for layer in layers]
    matrices = tuple(
        Matrix(f"{prefix}.{layer}", linear.weight.detach())
        for layer, linear in zip(layers, linears, strict=True)
    )
    module = linears[0] if watched is None else watched
    return Group(f"{prefix}.{name}", (Site(matrices),), (Watched(module, _all_rows(0)),))


def _all_rows(site: int) -> Rows:
    def rows(arguments: tuple[Tensor, ...], real_N: Tensor) -> Iterator[tuple[int, Tensor]]:
        yield site, arguments[0].flatten(0, -2)[real_N]

    return rows


def _mixture_groups(mlp: MoE, prefix: str) -> tuple[Group, ...]:
    """Of the routed experts and the shared one together, first what comes into them, then their inside."""
    experts, shared_name = mlp.experts, "shared_experts" if mlp.sigmoid else "shared_expert"
    E = len(experts.gate_up_proj)
    names = [f"{prefix}.experts.{e}" for e in range(E)]
    into = [_expert_into(experts, e, name) for e, name in enumerate(names)]
    inside = [
        Site((Matrix(f"{name}.down_proj", experts.down_proj.detach()[e]),))
        for e, name in enumerate(names)
    ]
    watch_into = [Watched(experts, _routed_rows(E))]
    watch_inside = [Watched(experts, _hidden_rows(experts))]
    shared = mlp.shared_experts if mlp.shared_experts is not None else mlp.shared_expert
    if shared is not None:
        gate_up, down = _dense_groups(shared, f"{prefix}.{shared_name}")
        into += gate_up.sites
        inside += down.sites
        watch_into.append(Watched(shared, _all_rows(E)))
        watch_inside.append(Watched(shared.down_proj, _all_rows(E)))
    return (
        Group(f"{prefix}.gate_up", tuple(into), tuple(watch_into)),
        Group(f"{prefix}.down", tuple(inside), tuple(watch_inside)),
    )


def _expert_into(experts: Experts, e: int, name: str) -> Site:
    gate, up = experts.gate_up_proj.detach()[e].chunk(2)
    return Site((Matrix(f"{name}.gate_proj", gate), Matrix(f"{name}.up_proj", up)))


def _routed_rows(E: int) -> Rows:
    """The tokens of each expert."""

    def rows(arguments: tuple[Tensor, ...], real_N: Tensor) -> Iterator[tuple[int, Tensor]]:
        x_NH, _, experts_Nk = arguments
        for e in range(E):
            yield e, x_NH[(experts_Nk == e).any(-1) & real_N]

    return rows


def _hidden_rows(experts: Experts) -> Rows:
    """What each expert makes of its tokens before its last product."""

    def rows(arguments: tuple[Tensor, ...], real_N: Tensor) -> Iterator[tuple[int, Tensor]]:
        for e, x_TH in _routed_rows(len(experts.gate_up_proj))(arguments, real_N):
            gate, up = F.linear(x_TH, experts.gate_up_proj[e]).chunk(2, dim=-1)
            yield e, F.silu(gate) * up

    return rows
