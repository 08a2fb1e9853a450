"""A run's reply in the form of OpenAI's Responses API: one body, or its typed events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from mengya.serving.api.answers import Run
from mengya.serving.api.chat import logprobs_of
from mengya.serving.api.openai_responses.protocol import ResponsesRequest, Status
from mengya.serving.api.reply_blocks import Block, Blocks, Kind, Step, all_blocks
from mengya.serving.api.responses import TokenLogprob, new_id, now
from mengya.web.errors import ApiError
from mengya.web.events import StreamForm, typed_event


class OutputText(BaseModel):
    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = []
    logprobs: list[TokenLogprob] = []


class ReasoningText(BaseModel):
    type: Literal["reasoning_text"] = "reasoning_text"
    text: str


class OutputMessage(BaseModel):
    type: Literal["message"] = "message"
    id: str
    role: Literal["assistant"] = "assistant"
    status: Status
    content: list[OutputText]


class OutputReasoning(BaseModel):
    type: Literal["reasoning"] = "reasoning"
    id: str
    status: Status
    summary: list[Any] = []
    content: list[ReasoningText]


class OutputCall(BaseModel):
    type: Literal["function_call"] = "function_call"
    id: str
    call_id: str
    name: str
    arguments: str
    status: Status


Output = Annotated[OutputMessage | OutputReasoning | OutputCall, Field(discriminator="type")]


class InputDetails(BaseModel):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(BaseModel):
    reasoning_tokens: int


class ResponsesUsage(BaseModel):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class IncompleteDetails(BaseModel):
    reason: Literal["max_output_tokens"]


class ResponseBody(BaseModel):
    """The body of an answer; nothing of it is stored."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Status
    error: None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[Output]
    parallel_tool_calls: bool
    previous_response_id: None = None
    reasoning: dict[str, Any]
    store: Literal[False] = False
    temperature: float | None
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_logprobs: int | None
    top_p: float | None
    truncation: Literal["disabled"] = "disabled"
    usage: ResponsesUsage | None = None


class Writer:
    """Writes the answer to one request."""

    def __init__(self, run: Run, request: ResponsesRequest) -> None:
        self._run, self._request = run, request
        self._id, self._created = new_id("resp", "_"), now()
        self._number = -1

    @property
    def form(self) -> StreamForm:
        """How the stream ends: without [DONE]; an error is numbered as the other events are."""
        return StreamForm(failed=self._failed, end="")

    async def body(self) -> ResponseBody:
        """The complete answer."""
        blocks = await all_blocks(self._run, _new_id)
        return self._response(self._status(blocks), blocks.blocks)

    async def events(self) -> AsyncGenerator[str, None]:
        """The events of the answer: its items one after the other, between start and end."""
        begun = self._response("in_progress", []).model_dump()
        yield self._event("response.created", response=begun)
        yield self._event("response.in_progress", response=begun)
        blocks = Blocks(_new_id)
        async for _, piece in self._run.pieces():
            for step in blocks.push(piece):
                for text in self._step(step, blocks):
                    yield text
        status = self._status(blocks)
        done = self._response(status, blocks.blocks).model_dump()
        yield self._event(f"response.{status}", response=done)

    def _event(self, kind: str, **values: Any) -> str:
        self._number += 1
        return typed_event(kind, {"type": kind, "sequence_number": self._number, **values})

    def _failed(self, error: ApiError) -> str:
        # The documented fields, and what the SDK raises an exception for.
        said = error.body()["error"]
        known = {name: said[name] for name in ("code", "message", "param")}
        return self._event("error", **known, error=said)

    def _step(self, step: Step, blocks: Blocks) -> list[str]:
        block = step.block
        place = {"output_index": block.index}
        if step.what == "open":
            item = self._item(block, "in_progress").model_dump()
            item |= {"arguments": ""} if block.call else {"content": []}
            added = self._event("response.output_item.added", **place, item=item)
            if block.call is not None:
                return [added]
            return [added, self._part_event("added", block, place, empty=True)]
        inside = {**place, "item_id": block.id}
        if step.what == "add":
            return [self._grown(step, inside)]
        is_last = blocks.finish == "length" and block is blocks.blocks[-1]
        item = self._item(block, "incomplete" if is_last else "completed")
        return [
            *self._closed(block, inside),
            self._event("response.output_item.done", **place, item=item.model_dump()),
        ]

    def _grown(self, step: Step, inside: dict[str, Any]) -> str:
        if step.block.call is not None:
            return self._event("response.function_call_arguments.delta", **inside, delta=step.text)
        inside = {**inside, "content_index": 0, "delta": step.text}
        if step.block.kind == "reasoning":
            return self._event("response.reasoning_text.delta", **inside)
        chosen = logprobs_of(step.tokens, self._run.token_text).model_dump()["content"]
        return self._event("response.output_text.delta", **inside, logprobs=chosen)

    def _closed(self, block: Block, inside: dict[str, Any]) -> list[str]:
        if block.call is not None:
            done = {**inside, "name": block.call.name, "arguments": block.text}
            return [self._event("response.function_call_arguments.done", **done)]
        part = self._part(block).model_dump()
        kind = "reasoning_text" if block.kind == "reasoning" else "output_text"
        more = {} if block.kind == "reasoning" else {"logprobs": part["logprobs"]}
        return [
            self._event(
                f"response.{kind}.done", **inside, content_index=0, text=block.text, **more
            ),
            self._part_event("done", block, {"output_index": block.index}),
        ]

    def _part_event(
        self, what: str, block: Block, place: dict[str, Any], empty: bool = False
    ) -> str:
        part = self._part(Block(block.kind, block.index, block.id) if empty else block)
        return self._event(
            f"response.content_part.{what}",
            **place, item_id=block.id, content_index=0, part=part.model_dump(),
        )  # fmt: skip

    def _part(self, block: Block) -> OutputText | ReasoningText:
        if block.kind == "reasoning":
            return ReasoningText(text=block.text)
        chosen = logprobs_of(block.tokens, self._run.token_text).content
        return OutputText(text=block.text, logprobs=chosen)

    def _item(self, block: Block, status: Status) -> OutputMessage | OutputReasoning | OutputCall:
        if block.call is not None:
            return OutputCall(
                id=block.id,
                call_id=block.id.replace("fc_", "call_", 1),
                name=block.call.name,
                arguments=block.text,
                status=status,
            )
        part = self._part(block)
        if isinstance(part, ReasoningText):
            return OutputReasoning(id=block.id, status=status, content=[part])
        return OutputMessage(id=block.id, status=status, content=[part])

    def _status(self, blocks: Blocks) -> Status:
        return "incomplete" if blocks.finish == "length" else "completed"

    def _response(self, status: Status, blocks: list[Block]) -> ResponseBody:
        request, is_over = self._request, status != "in_progress"
        is_cut = status == "incomplete"
        text = request.text.model_dump(by_alias=True, exclude_none=True) if request.text else {}
        choice = request.tool_choice
        return ResponseBody(
            id=self._id,
            created_at=self._created,
            completed_at=now() if status == "completed" else None,
            status=status,
            incomplete_details=IncompleteDetails(reason="max_output_tokens") if is_cut else None,
            instructions=request.instructions,
            max_output_tokens=request.max_output_tokens,
            metadata=request.metadata or {},
            model=request.model,
            output=[
                self._item(block, "incomplete" if is_cut and block is blocks[-1] else "completed")
                for block in blocks
            ],
            parallel_tool_calls=request.parallel_tool_calls is not False,
            reasoning={"effort": request.reasoning.effort if request.reasoning else None},
            temperature=request.temperature,
            text={"format": {"type": "text"}, **text},
            tool_choice=choice.model_dump() if isinstance(choice, BaseModel) else choice or "auto",
            tools=[
                {"parameters": None, "strict": None, **tool.model_dump(exclude_none=True)}
                for tool in request.tools or []
            ],
            top_logprobs=request.top_logprobs,
            top_p=request.top_p,
            usage=self._usage() if is_over else None,
        )

    def _usage(self) -> ResponsesUsage:
        session = self._run.session
        return ResponsesUsage(
            input_tokens=session.prompt_tokens,
            input_tokens_details=InputDetails(cached_tokens=session.cached_tokens),
            output_tokens=session.completion_tokens,
            output_tokens_details=OutputDetails(
                reasoning_tokens=self._run.choices[0].reasoning_tokens
            ),
            total_tokens=session.prompt_tokens + session.completion_tokens,
        )


def _new_id(kind: Kind) -> str:
    return new_id({"reasoning": "rs", "text": "msg", "call": "fc"}[kind], "_")
