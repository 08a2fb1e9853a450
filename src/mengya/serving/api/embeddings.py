"""POST /v1/embeddings: texts -> the mean of the last hidden state over their tokens, of length 1.

A language model's hidden states were not trained to be compared; neighbours in meaning tend to be
neighbours here, no more is claimed.
Shapes: S tokens, H = hidden_size.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from starlette.requests import Request as HttpRequest

from mengya.models.causal_lm import CausalLM
from mengya.serving.api.prompts import Prompt, prepare, read_prompts
from mengya.serving.api.protocol import EmbeddingRequest
from mengya.serving.api.responses import Embedding, EmbeddingList, EmbeddingUsage
from mengya.serving.runtime.served import Served, ServedName
from mengya.serving.runtime.service import Service
from mengya.serving.runtime.session import engine_errors
from mengya.web.disconnect import unless_gone
from mengya.web.errors import ApiError


async def answer(service: Service, request: EmbeddingRequest, http: HttpRequest) -> EmbeddingList:
    """A vector for each input, one forward pass each, between steps of the engine.

    Raises:
        ApiError: whatever is wrong with the request, or with the server.
        ClientGone: the client disconnected.
    """
    name = service.named(request.model)
    prompts = await prepare(lambda: _prepared(service, request))
    return await unless_gone(http, _embedded(service, request, name, prompts))


def _prepared(service: Service, request: EmbeddingRequest) -> list[Prompt]:
    served = service.served()
    prompts = read_prompts(served, request.input)
    for prompt in prompts:
        if len(prompt.ids) > served.context:
            raise ApiError(
                400,
                f"an input has {len(prompt.ids)} tokens and the model's context is {served.context}; "
                "shorten it",
                param="input",
                code="context_length_exceeded",
            )
    return prompts


async def _embedded(
    service: Service, request: EmbeddingRequest, name: ServedName, prompts: list[Prompt]
) -> EmbeddingList:
    served = service.served()
    data = []
    for index, prompt in enumerate(prompts):
        with engine_errors():
            vector = await service.worker.call(lambda ids=prompt.ids: _vector(served, name, ids))
        value: list[float] | str = vector.tolist()
        if request.encoding_format == "base64":
            value = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        data.append(Embedding(index=index, embedding=value))
    tokens = sum(len(prompt.ids) for prompt in prompts)
    service.metrics.prompt_tokens.inc(tokens)
    usage = EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens)
    return EmbeddingList(data=data, model=request.model, usage=usage)


def _vector(served: Served, name: ServedName, ids: Sequence[int]) -> np.ndarray:
    if served.adapters is None:
        return mean_pooled(served.model, ids).cpu().numpy()
    engines = served.adapters.current
    served.adapters.select(name.adapter)
    try:
        return mean_pooled(served.model, ids).cpu().numpy()
    finally:
        served.adapters.select(engines)  # what the engine believes to be selected


@torch.inference_mode()
def mean_pooled(model: CausalLM, ids: Sequence[int]) -> torch.Tensor:
    """The mean over all tokens of what the output layer sees, divided by its length: [H] float32."""
    ids_1S = torch.tensor([list(ids)], device=model.lm_head.weight.device)
    hidden_1SH = model(ids_1S, head=lambda hidden, _: hidden).head_output
    return F.normalize(hidden_1SH[0].float().mean(0), dim=0)
