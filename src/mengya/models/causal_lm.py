"""The decoder: token ids in, logits out. Parameter names are those of transformers' classes.

Knows nothing of losses, text or files. Shapes: B rows, S positions, V = vocab_size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mengya.models.attention import Attention
from mengya.models.attention_mask import AttentionPlan, plan_attention
from mengya.models.cache.kv import KVCache
from mengya.models.cache.paged import PagedStep
from mengya.models.config.model import ModelConfig
from mengya.models.extensions.clex import Clex
from mengya.models.feed_forward import SwiGLU
from mengya.models.mla import LatentAttention
from mengya.models.moe import Experts, MoE, Routing
from mengya.models.norm import RMSNorm
from mengya.models.router import Router, SigmoidRouter

_VOCABULARY_MULTIPLE = 128  # tensor cores: an odd width doubles the time of linear + cross entropy
# Of a layer: the first, dense ones, mixtures, each for training, validation and DPO's reference.
_GRAPHS = 16  # torch's limit is 8, and what is above it runs uncompiled


OutputLayer = Callable[[Tensor, Tensor], Tensor]
"""(last hidden states [B, S, hidden], output matrix [V, hidden]) -> what stands in place of logits."""


class CausalLMOutput(NamedTuple):
    """logits [B, S, V] (S = 1 with last_only), or what `output_layer` made in their place;
    aux_loss_B [B] fp32, None without a balancing loss."""

    logits: Tensor
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

    def forward(
        self,
        x: Tensor,
        update: Tensor | None,
        plan: AttentionPlan,
        real_BS: Tensor | None,
        cache: KVCache | PagedStep | None,
    ) -> tuple[Tensor, Tensor, Routing | None]:
        """The stream x and what is to be added to it, both [B, S, hidden]: here of the layer before, then ours.

        Apart, because the compiler makes one kernel of an addition and the norm behind it, but of two
        graphs it makes no kernel.
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
        self.clex = Clex(config, device) if config.rope_parameters.rope_type == "clex" else None


class CausalLM(nn.Module):
    """A model of one of the classes in `ModelConfig`, weights drawn from normal(0, initializer_range).

    Attributes:
        gradient_checkpointing: recompute each layer in the backward pass (less memory, more time).
        neftune_alpha: noise on the embeddings in training, 0 = none (arXiv:2310.05914).
        shifted_sparse_ratio: in training each half of the heads sees groups of this share of a row
            only (shifted_groups.py); 0 = all.
        pad_vocabulary: widen the output matmul to a multiple of 128; None: on CUDA only. Neither
            parameters nor logits change shape by it.
    """

    def __init__(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.neftune_alpha = 0.0
        self.shifted_sparse_ratio = 0.0
        self.pad_vocabulary: bool | None = None
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
        cache: KVCache | PagedStep | None = None,
        last_only: bool = False,
        logits_at: Tensor | None = None,
        output_layer: OutputLayer | None = None,
    ) -> CausalLMOutput:
        """Logits of the next token at every position.

        Args:
            input_ids: [B, S] int64.
            position_ids: [B, S] int64; None: counted from the cache's length, or from 0.
            document_ids: [B, S] int64, -1 on padding: documents never see each other. None: each
                row is one document.
            cu_seqlens: [N + 1] int32, the same boundaries (see `Batch`); with it, CUDA in half
                precision attends without a mask.
            cache: what came before; gains these S tokens. Not together with document_ids. A
                PagedStep takes one row: the new tokens of many sequences, end to end.
            last_only: logits of the last position only (generation).
            logits_at: [N] int64, numbers of the flattened B*S positions: logits are [1, N, V] of
                these alone (SFT on a CPU, where most positions have no label).
            output_layer: makes something smaller than logits of the last hidden states, such as a
                loss; the output layer must have no adapter.
        """
        if cache is not None and document_ids is not None:
            raise ValueError("document_ids and cache together: decode one document per row")
        dtype = self._compute_dtype(input_ids.device.type)
        plan = plan_attention(
            self.config, input_ids, position_ids, document_ids, cu_seqlens, cache, dtype,
            self.shifted_sparse_ratio if self.training and cache is None else 0.0, self.model.clex,
        )  # fmt: skip
        real_BS = None if document_ids is None else document_ids >= 0
        # Under autocast a fp32 residual stream would double the traffic of all that is no product.
        x = self._embed(input_ids).to(dtype)
        update: Tensor | None = None
        routings: list[Routing] = []
        for layer in self.model.layers:
            if self.gradient_checkpointing and self.training:
                x = x if update is None else x + update  # one tensor to keep, not two
                x, update, routing = checkpoint(
                    layer, x, None, plan, real_BS, cache, use_reentrant=False
                )  # type: ignore[misc]
            elif cache is None:
                x, update, routing = layer(x, update, plan, real_BS, cache)
            else:  # never through the compiler: every length would be a shape of its own
                x, update, routing = layer.forward(x, update, plan, real_BS, cache)
            if routing is not None:
                routings.append(routing)
        assert update is not None
        x = x + update
        if isinstance(cache, KVCache):
            cache.advance(input_ids.shape[1])
        if last_only:
            x = x[:, -1:]
        if logits_at is not None:
            x = x.flatten(0, 1)[logits_at][None]
        x = self.model.norm(x) if cache is None else self.model.norm.forward(x)
        if output_layer is None:
            return CausalLMOutput(self._logits(x), self._take(routings))
        return CausalLMOutput(output_layer(x, self.lm_head.weight), self._take(routings))

    def compile_layers(self, inside_hooks: bool = False) -> None:
        """torch.compile every layer and the last norm, in place, for batches of fixed shape.

        The first layer has a graph of its own, the others of one kind share one, so that the time to
        compile does not grow with depth; decoding with a cache stays as it is.

        Args:
            inside_hooks: leave the hooks of a layer out of its graph (FSDP's gather its weights).
        """
        torch._dynamo.config.recompile_limit = max(_GRAPHS, torch._dynamo.config.recompile_limit)
        for layer in self.model.layers:
            if inside_hooks:
                layer.forward = torch.compile(layer.forward, dynamic=False)
            else:
                layer.compile(dynamic=False)
        self.model.norm.compile(dynamic=False)

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
        if not padded or not extra:
            return self.lm_head(x)
        # Padding the weight here, not in the parameter: a copy of it is nothing beside the logits,
        # and checkpoints, optimizer state and resumed runs keep one shape on every device.
        return F.linear(x, F.pad(self.lm_head.weight, (0, 0, 0, extra)))[..., :V]

    def _compute_dtype(self, device_type: str) -> torch.dtype:
        """The dtype that matrix products run in: autocast's, else the parameters'."""
        if torch.is_autocast_enabled(device_type):
            return torch.get_autocast_dtype(device_type)
        return self.model.norm.weight.dtype
