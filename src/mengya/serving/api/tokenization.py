"""POST /tokenize and /detokenize, as vLLM has them: a prompt or a conversation <-> token ids.

The ids are those that the model would see: a text begins with the document token, as in completions.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, model_validator

from mengya.serving.api.chat_prompt import render_chat
from mengya.serving.api.chat_protocol import ChatTemplateOptions, Message, Tool
from mengya.serving.api.chat_run import read_chat
from mengya.serving.api.ignored import NotingRequest, name_ignored
from mengya.serving.api.prompts import check_ids, prepare, read_prompts
from mengya.serving.runtime.served import Served
from mengya.serving.runtime.served_models import ServedModels
from mengya.web.errors import error_responses


class TokenizeRequest(NotingRequest):
    """Either a prompt, or messages with what belongs to them."""

    model: str | None = None
    """A name of GET /v1/models; none: the first."""
    prompt: str | None = None
    add_special_tokens: bool | None = None
    """Of a prompt: false leaves the document token before it out. A conversation has only the tokens that
    its template writes."""
    return_token_strs: bool | None = None
    """Also give each token as text."""
    messages: Annotated[list[Message], Field(fail_fast=True)] | None = Field(
        default=None, min_length=1
    )
    tools: list[Tool] | None = Field(default=None, max_length=128)
    chat_template_kwargs: ChatTemplateOptions | None = None
    add_generation_prompt: bool | None = None
    """false only together with continue_final_message."""
    continue_final_message: bool | None = None
    """true: the last message, an assistant's, stays open."""

    @model_validator(mode="after")
    def _one_of_two(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("prompt or messages: send one of them")
        if self.messages is None:
            for name in (
                "tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message"
            ):  # fmt: skip
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} needs messages")
        elif self.add_special_tokens:
            raise ValueError("add_special_tokens needs a prompt: a chat template writes its own")
        return self


class Tokens(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(NotingRequest):
    """Token ids to be written as text, special tokens included."""

    model: str | None = None
    """A name of GET /v1/models; none: the first."""
    tokens: Annotated[list[int], Field(fail_fast=True)]


class Text(BaseModel):
    prompt: str


def add_routes(app: FastAPI, models: ServedModels) -> None:
    """Add the addresses of this API."""
    errors = error_responses(400, 401, 404, 413, 500, 503)

    def named(request: TokenizeRequest | DetokenizeRequest) -> str:
        return models.base.served().name if request.model is None else request.model

    @app.post("/tokenize", response_model=Tokens, responses=errors)
    async def tokenize(request: TokenizeRequest, http: Request) -> Response:
        """The token ids of a prompt, or of a conversation up to where its reply begins."""
        async with models.use(named(request), http) as service:
            served = service.served()
            ids = await prepare(lambda: _ids(served, request))
            tokens = Tokens(count=len(ids), max_model_len=served.context, tokens=ids)
            if request.return_token_strs:
                tokens.token_strs = [served.token_text.text(token) for token in ids]
        response = JSONResponse(tokens.model_dump())
        name_ignored(response, request.ignored)
        return response

    @app.post("/detokenize", responses=errors)
    async def detokenize(request: DetokenizeRequest, http: Request) -> Text:
        """The text of token ids."""
        async with models.use(named(request), http) as service:
            served = service.served()
            check_ids(served, request.tokens, "tokens")
            return Text(prompt=await prepare(lambda: _text(served, request.tokens)))


def _ids(served: Served, request: TokenizeRequest) -> list[int]:
    if request.prompt is not None:
        prompt = read_prompts(served, request.prompt, "prompt")[0]
        return list(prompt.ids[prompt.hidden if request.add_special_tokens is False else 0 :])
    names = ("messages", "chat_template_kwargs", "add_generation_prompt", "continue_final_message")
    body = {name: getattr(request, name) for name in names}
    tools = [tool.written for tool in request.tools] if request.tools else None
    chat = read_chat({"model": request.model or "", **body, "tools": tools})
    return render_chat(served.tokenizer, chat).ids


def _text(served: Served, ids: list[int]) -> str:
    return str(served.tokenizer.decode(ids, skip_special_tokens=False))
