"""POST /v1/embeddings: texts -> the mean of the last hidden state over their tokens, of length 1.

A language model's hidden states were not trained to be compared; neighbours in meaning tend to be
neighbours here, no more is claimed.
Shapes: S tokens, H = hidden_size.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

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

_END = object()


async def answer(service: Service, request: EmbeddingRequest, http: HttpRequest) -> EmbeddingList:
    """A vector for each input, one forward pass each, in pieces between steps of the engine.

    Raises:
        ApiError: whatever is wrong with the request, or with the server.
        ClientGone: the client disconnected.
    """
    name = service.named(request.model)
    prompts = await prepare(lambda: _prepared(service, request))
    return await unless_gone(http, _embedded(service, request, name, prompts))


def _prepared(service: Service, request: EmbeddingRequest) -> list[Prompt]:
    served = service.served()
    prompts = read_prompts(served, request.input, "input")
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
    vectors = await _vectors(service, name, prompts)
    data = [
        Embedding(index=index, embedding=_encoded(vector, request.encoding_format))
        for index, vector in enumerate(vectors)
    ]
    tokens = sum(len(prompt.ids) for prompt in prompts)
    service.metrics.prompt_tokens.inc(tokens)
    usage = EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens)
    return EmbeddingList(data=data, model=request.model, usage=usage)


def _encoded(vector: np.ndarray, encoding: str | None) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()


async def _vectors(
    service: Service, name: ServedName, prompts: Sequence[Prompt]
) -> list[np.ndarray]:
    served, found = service.served(), list[np.ndarray]()
    pieces = _pieces(served, prompts, found)
    with engine_errors():
        while await service.worker.call(lambda: _run_piece(served, name, pieces)):
            pass
    return found


def _pieces(served: Served, prompts: Sequence[Prompt], found: list[np.ndarray]) -> Iterator[None]:
    """Add the vectors to `found`; each item is a piece of the work.

    A piece is about as much as the engine computes of prompts in a step; of a text that is longer, one
    layer at least.
    """
    most = served.engine.prefill_chunk * served.model.config.num_hidden_layers
    done = 0
    for prompt in prompts:
        for vector in mean_pooled(served.model, prompt.ids):
            if vector is not None:
                found.append(vector)
                continue
            done += len(prompt.ids)
            if done >= most:
                done = 0
                yield


def _run_piece(served: Served, name: ServedName, pieces: Iterator[None]) -> bool:
    """With the adapter that `name` means; False: that was the last one."""
    if served.adapters is None:
        return next(pieces, _END) is None
    selected = served.adapters.current
    served.adapters.select(name.adapter)
    try:
        return next(pieces, _END) is None
    finally:
        served.adapters.select(selected)  # what the engine believes to be selected


@torch.inference_mode()
def mean_pooled(model: CausalLM, ids: Sequence[int]) -> Iterator[np.ndarray | None]:
    """The mean over all tokens of what the output layer sees, divided by its length, [H] float32.

    Gives None after every layer, and the vector last.
    """
    ids_1S = torch.tensor([list(ids)], device=model.lm_head.weight.device)
    hidden_1SH = yield from model.hidden_by_layer(ids_1S)
    yield F.normalize(hidden_1SH[0].float().mean(0), dim=0).cpu().numpy()
