"""The decoder: token ids in, logits out. Parameter names are those of transformers' classes.

Knows nothing of losses, text or files. Shapes: B rows, S positions, V = vocab_size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mengya.kernels.cross_entropy import ReplacedRows
from mengya.models.attention import Attention
from mengya.models.attention_mask import (
    AttentionPlan,
    PatternMaker,
    plan_attention,
    plan_decoding,
)
from mengya.models.cache.protocol import Cache
from mengya.models.config.model import ModelConfig
from mengya.models.extensions import learned_rope
from mengya.models.feed_forward import SwiGLU
from mengya.models.mla import LatentAttention
from mengya.models.moe import Experts, MoE, Routing
from mengya.models.norm import RMSNorm
from mengya.models.quantized.in_training import round_in_training
from mengya.models.rope import LearnedRope
from mengya.models.router import Router, SigmoidRouter
from mengya.models.token_row_layers import RowsLinear

_VOCABULARY_MULTIPLE = 128  # tensor cores: an odd width doubles the time of linear + cross entropy
# Of a layer: the first, dense ones, mixtures, each for training, validation and DPO's reference.
_GRAPHS = 16  # torch's limit is 8, and what is above it runs uncompiled

Head = Callable[[Tensor, Tensor, ReplacedRows | None], Tensor]
"""(last hidden states [B, S, hidden], output matrix [V, hidden], rows that an adapter has in place of some
of it) -> what is wanted instead of logits."""


class CausalLMOutput(NamedTuple):
    """head_output: logits [B, S, V] ([1, N, V] with `positions`), or what `head` gave.
    aux_loss_B: [B] fp32, None without a balancing loss."""

    head_output: Tensor
    aux_loss_B: Tensor | None


class DecoderLayer(nn.Module):
    """Pre-norm attention, then a pre-norm feed-forward layer or mixture of experts."""

    def __init__(
        self, config: ModelConfig, layer: int, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, device)
        latent = config.kv_lora_rank is not None
        self.self_attn = (LatentAttention if latent else Attention)(config, layer, device)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, device)
        if config.num_experts and layer >= config.first_k_dense_replace:
            self.mlp = MoE(config, device)
        else:
            self.mlp = SwiGLU(config.hidden_size, config.intermediate_size, device)

        self._compiled: Callable[..., tuple[Tensor, Tensor, Routing | None]] | None = None

    def compile_compute(self) -> None:
        """Make `forward` use a compiled `compute`; hooks stay outside of the graph, `compute` stays eager."""
        # The function, not the bound method: layers share graphs, and a copied layer stays its own.
        self._compiled = torch.compile(DecoderLayer.compute, dynamic=False)

    def forward(
        self,
        x: Tensor,
        update: Tensor | None,
        plan: AttentionPlan,
        real_BS: Tensor | None = None,
        cache: Cache | None = None,
        eager: bool = False,
    ) -> tuple[Tensor, Tensor, Routing | None]:
        """`compute`, compiled where `compile_compute` was called and not `eager`."""
        if self._compiled is None or eager:
            return self.compute(x, update, plan, real_BS, cache)
        return self._compiled(self, x, update, plan, real_BS, cache)

    def compute(
        self,
        x: Tensor,
        update: Tensor | None,
        plan: AttentionPlan,
        real_BS: Tensor | None,
        cache: Cache | None,
    ) -> tuple[Tensor, Tensor, Routing | None]:
        """The residual stream x and the update that is still to be added to it, both [B, S, hidden].

        Not added here, because the compiler fuses an addition with the norm after it, in one graph only.
        """
        if update is not None:
            x = x + update
        x = x + self.self_attn(self.input_layernorm(x), plan, cache)
        normed = self.post_attention_layernorm(x)
        if isinstance(self.mlp, MoE):
            return x, *self.mlp(normed, real_BS)
        return x, self.mlp(normed), None


class Decoder(nn.Module):
    """Embedding, layers and last norm: what transformers calls `model`."""

    def __init__(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, device=device)
        self.layers = nn.ModuleList(
            DecoderLayer(config, layer, device) for layer in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, device)
        rope = learned_rope(config, device)
        self._rope_name = config.rope_parameters.rope_type  # of its parameters on disk, too
        if rope is not None:
            self.add_module(self._rope_name, rope)
        self._learns_rope = rope is not None

    @property
    def learned_rope(self) -> LearnedRope | None:
        """The frequencies of a rope_type that is trained; None for the others."""
        return getattr(self, self._rope_name) if self._learns_rope else None


class CausalLM(nn.Module):
    """A model of one of the classes in `ModelConfig`, weights drawn from normal(0, initializer_range).

    Attributes:
        gradient_checkpointing: recompute each layer in the backward pass (less memory, more time).
        neftune_alpha: noise on the embeddings in training, 0 = none (arXiv:2310.05914).
        training_pattern: what each token sees in training, instead of all before it in its document.
        pad_vocabulary: widen the output matrix product to a multiple of 128; None: on CUDA only. The
            shapes of parameters and logits stay the same.
    """

    def __init__(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.neftune_alpha = 0.0
        self.training_pattern: PatternMaker | None = None
        self.pad_vocabulary: bool | None = None
        self._compiled_norm: Callable[[RMSNorm, Tensor], Tensor] | None = None
        self.model = Decoder(config, device)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False, device=device)
        load = torch.zeros(
            config.num_moe_layers, config.num_experts, dtype=torch.int64, device=device
        )
        self.register_buffer("expert_load", load, persistent=False)
        self.expert_load: Tensor
        self.tie_weights()
        if self.lm_head.weight.device.type != "meta":
            self.apply(self._initialize)
        if config.quantization is not None:
            round_in_training(self.model.layers, config.quantization)

    def tie_weights(self) -> None:
        """Make the output layer share the embedding where the configuration says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @torch.no_grad()
    def _initialize(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if module is self.lm_head and self.config.tie_word_embeddings:
            return
        if isinstance(module, nn.Linear | nn.Embedding | Router):
            nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, Experts):
            nn.init.normal_(module.gate_up_proj, std=std)
            nn.init.normal_(module.down_proj, std=std)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        head: Head | None = None,
    ) -> CausalLMOutput:
        """Logits of the next token at every position of complete rows.

        Args:
            input_ids: [B, S] int64.
            position_ids: [B, S] int64; None: counted from 0.
            document_ids: [B, S] int64, -1 on padding: documents never see each other. None: each
                row is one document.
            cu_seqlens: [N + 1] int32, the same boundaries (see `Batch`); with it, CUDA in half
                precision attends without a mask.
            positions: [N] int64, numbers of the flattened B*S positions: the output is of these alone,
                [1, N, ...] (SFT on a CPU, where most positions have no label).
            head: called instead of the output layer, which must have no adapter but trained rows; gives
                something smaller than logits, such as a loss.
        """
        plan = plan_attention(
            self.config, input_ids, position_ids, document_ids, cu_seqlens,
            self._compute_dtype(input_ids.device.type), self.model.learned_rope,
            self.training_pattern if self.training else None,
        )  # fmt: skip
        real_BS = None if document_ids is None else document_ids >= 0
        x, routings = self._hidden(input_ids, plan, real_BS)
        x = _select(x, positions)
        norm = self.model.norm
        x = norm(x) if self._compiled_norm is None else self._compiled_norm(norm, x)
        output = self._logits(x) if head is None else head(x, self.lm_head.weight, self._replaced())
        return CausalLMOutput(output, self._take(routings))

    def decode(
        self,
        input_ids: Tensor,
        cache: Cache | None,
        position_ids: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Logits of the next token at every position, [B, S, V], never compiled: lengths may change freely.

        Args:
            input_ids: [B, S] int64, new tokens after those in `cache`, one document per row. With a
                `PagedStep` one row: the new tokens of many sequences, end to end.
            cache: gains these S tokens; None: nothing came before and nothing is kept.
            position_ids: [B, S] int64; None: counted by the cache, or from 0.
            positions: as for `forward`.
        """
        dtype, rope = self._compute_dtype(input_ids.device.type), self.model.learned_rope
        if cache is None:
            plan = plan_attention(self.config, input_ids, position_ids, None, None, dtype, rope)
        else:
            plan = plan_decoding(self.config, input_ids, position_ids, cache, dtype, rope)
        x, _ = self._hidden(input_ids, plan, None, cache, eager=True)
        if cache is not None:
            cache.advance(input_ids.shape[1])
        return self._logits(self.model.norm(_select(x, positions)))

    @torch.inference_mode()
    def hidden_by_layer(self, input_ids: Tensor) -> Generator[None, None, Tensor]:
        """What the output layer sees of complete rows, [B, S, hidden], to the bit as in `forward`.

        Yields after every layer, so that other work can be done in between; call in evaluation mode.
        """
        dtype = self._compute_dtype(input_ids.device.type)
        plan = plan_attention(
            self.config, input_ids, None, None, None, dtype, self.model.learned_rope
        )
        x, update = self._embed(input_ids).to(dtype), None
        for layer in self.model.layers:
            x, update, _ = layer(x, update, plan, None, None, False)
            yield
        assert update is not None
        return self.model.norm(x + update)

    def _hidden(
        self,
        input_ids: Tensor,
        plan: AttentionPlan,
        real_BS: Tensor | None,
        cache: Cache | None = None,
        eager: bool = False,
    ) -> tuple[Tensor, list[Routing]]:
        """Output of the last layer before the norm, [B, S, hidden]."""
        # Under autocast a fp32 residual stream would double the traffic of all but matrix products.
        x = self._embed(input_ids).to(self._compute_dtype(input_ids.device.type))
        update: Tensor | None = None
        routings: list[Routing] = []
        for layer in self.model.layers:
            if self.gradient_checkpointing and self.training and not eager:
                x = x if update is None else x + update  # one tensor to keep, not two
                made = checkpoint(layer, x, None, plan, real_BS, use_reentrant=False)
                x, update, routing = made  # type: ignore[misc]
            else:
                x, update, routing = layer(x, update, plan, real_BS, cache, eager)
            if routing is not None:
                routings.append(routing)
        assert update is not None
        return x + update, routings

    def compile_layers(self) -> None:
        """torch.compile every layer and the last norm for batches of fixed shape; `decode` stays eager.

        The first layer has a graph of its own, the others of one kind share one, so that the time to
        compile does not grow with depth. Hooks of a layer stay outside (FSDP's gather its weights).
        """
        torch._dynamo.config.recompile_limit = max(_GRAPHS, torch._dynamo.config.recompile_limit)
        for layer in self.model.layers:
            assert isinstance(layer, DecoderLayer)
            layer.compile_compute()
        self._compiled_norm = torch.compile(RMSNorm.forward, dynamic=False)

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Eager layers for the while: passes of many shapes, each of which would compile a graph."""
        layers = [layer for layer in self.model.layers if isinstance(layer, DecoderLayer)]
        compiled = [layer._compiled for layer in layers]
        norm, self._compiled_norm = self._compiled_norm, None
        try:
            for layer in layers:
                layer._compiled = None
            yield
        finally:
            self._compiled_norm = norm
            for layer, made in zip(layers, compiled, strict=True):
                layer._compiled = made

    def _take(self, routings: Sequence[Routing]) -> Tensor | None:
        """Add up the load, outside of what gradient checkpointing runs twice; [B] balancing loss."""
        if not routings:
            return None
        self.expert_load += torch.stack([routing.load_E for routing in routings])
        aux_losses = [routing.aux_B for routing in routings if routing.aux_B is not None]
        if not aux_losses:
            return None
        return torch.stack(aux_losses).mean(0) * self.config.aux_loss_coef

    def take_expert_load(self) -> Tensor:
        """Real tokens sent to each expert in training since last asked, [layers with experts, E] int64."""
        load = self.expert_load.clone()
        self.expert_load.zero_()
        return load

    def move_router_biases(self, load_LE: Tensor) -> None:
        """Move the correction biases of sigmoid routers by a step's load over all devices.

        A frozen router (LoRA) keeps its bias: an adapter's folder could not hold the change.
        """
        routers = [m.gate for m in self.modules() if isinstance(m, MoE)]
        for router, load_E in zip(routers, load_LE, strict=True):
            if isinstance(router, SigmoidRouter) and router.weight.requires_grad:
                router.move_bias(load_E)

    def _embed(self, input_ids: Tensor) -> Tensor:
        x = self.model.embed_tokens(input_ids)
        if self.training and self.neftune_alpha:
            scale = self.neftune_alpha / math.sqrt(x.shape[1] * x.shape[2])
            x = x + torch.empty_like(x).uniform_(-scale, scale)
        return x

    def _logits(self, x: Tensor) -> Tensor:
        V = self.config.vocab_size
        extra = -V % _VOCABULARY_MULTIPLE
        padded = x.is_cuda if self.pad_vocabulary is None else self.pad_vocabulary
        if padded and extra and isinstance(self.lm_head, RowsLinear):
            return self.lm_head(x, extra)
        if not padded or not extra or type(self.lm_head) is not nn.Linear:
            return self.lm_head(x)
        # The weight is padded here, not as a parameter: a copy is small next to the logits, and
        # checkpoints, optimizer state and resumed runs keep one shape on every device.
        return F.linear(x, F.pad(self.lm_head.weight, (0, 0, 0, extra)))[..., :V]

    def _replaced(self) -> ReplacedRows | None:
        return self.lm_head.rows.replaced if isinstance(self.lm_head, RowsLinear) else None

    def _compute_dtype(self, device_type: str) -> torch.dtype:
        """The dtype that matrix products run in: autocast's, else the parameters'."""
        if torch.is_autocast_enabled(device_type):
            return torch.get_autocast_dtype(device_type)
        return self.model.norm.weight.dtype


def _select(x_BSH: Tensor, positions: Tensor | None) -> Tensor:
    return x_BSH if positions is None else x_BSH.flatten(0, 1)[positions][None]
