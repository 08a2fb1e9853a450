"""What a checkpoint answers: prompts in, complete answers out, greedy or drawn with a seed.

A chat model is asked in its chat template; a base model continues the text. Takes an opened checkpoint; knows
nothing of what the answers are measured for. The same generations are asked for by several yardsticks, so
`answers` remembers them as long as the checkpoint is open.

The engine of `generation.batch` makes them where it can run the model, the lockstep loop of
`generation.engine` where it cannot; greedy answers are the same, and drawn ones use the same random numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from mengya.errors import UserError
from mengya.evaluation.subject import Subject
from mengya.generation.batch.engine import BatchEngine, check_supported
from mengya.generation.batch.request import EngineConfig, Request
from mengya.generation.engine import generate
from mengya.generation.sampling import SamplingParams
from mengya.generation.text_completion import Start, completion_pieces, document_starts, heal
from mengya.models.causal_lm import CausalLM
from mengya.tokenizer.chat_template import encode_prompt
from mengya.tokenizer.load import stop_token_ids
from mengya.tokenizer.message import Message

Prompt = str | Sequence[Message] | Sequence[int]
"""A question, or the beginning of a text; or the turns of a conversation so far; or the ids of a prompt."""

TOP_P = 0.95  # of drawn answers: the default of `mengya chat`
_ROWS = 64  # answers decoded at once
_PAGE = 16  # tokens


@dataclass(frozen=True)
class Answer:
    """
    Attributes:
        text: without a closed block of reasoning before it.
        tokens: how many were generated, reasoning included.
        finished: whether the model ended it; False: max_new_tokens or the context did.
    """

    prompt: Prompt
    text: str
    tokens: int
    finished: bool


_known: WeakKeyDictionary[CausalLM, dict[str, list[Answer]]] = WeakKeyDictionary()


def answers(
    subject: Subject,
    prompts: Sequence[Prompt],
    *,
    temperature: float | None,
    max_new_tokens: int,
    seed: int = 0,
) -> list[Answer]:
    """One answer for each prompt, in their order. Asked again with the same settings, the same list.

    Args:
        temperature: None takes the likeliest token each time.
        max_new_tokens: of each answer; fewer where the prompt leaves less of the model's context.

    Raises:
        UserError: a prompt is empty, leaves no room in the model's context or does not fit the template.
    """
    if subject.model.training:  # its weights change: nothing to remember
        return _generated(subject, prompts, temperature, max_new_tokens, seed)
    known = _known.setdefault(subject.model, {})
    key = json.dumps([subject.chat, prompts, temperature, max_new_tokens, seed], default=list)
    if key not in known:
        known[key] = _generated(subject, prompts, temperature, max_new_tokens, seed)
    return known[key]


def prompt_ids(subject: Subject, prompt: Prompt) -> list[int]:
    """What the model sees of a prompt: a chat model its template, a base model the text of the turns."""
    if isinstance(prompt, str):
        turns: list[Message] = [{"role": "user", "content": prompt}]
    else:
        ids = [part for part in prompt if isinstance(part, int)]
        if ids:
            return ids
        turns = [part for part in prompt if not isinstance(part, int)]
    if subject.chat:
        return encode_prompt(subject.tokenizer, turns)
    text = "\n".join(str(turn.get("content") or "") for turn in turns)
    return document_starts(subject.tokenizer, [text])[0]


def _generated(
    subject: Subject,
    prompts: Sequence[Prompt],
    temperature: float | None,
    max_new_tokens: int,
    seed: int,
) -> list[Answer]:
    sampling = SamplingParams(
        temperature=temperature or 0, top_p=TOP_P, max_new_tokens=max_new_tokens, seed=seed
    )
    starts = [Start(prompt_ids(subject, prompt)) for prompt in prompts]
    for number, start in enumerate(starts):
        if len(start.ids) >= subject.context_length:
            raise UserError(
                f"prompt {number} has {len(start.ids)} tokens and the model's context is "
                f"{subject.context_length}; leave it out or shorten it: {prompts[number]!r:.60}"
            )
    if not subject.chat:
        starts = [heal(subject.model, subject.tokenizer, start.ids, sampling) for start in starts]
    completions = _completions(subject, [start.ids for start in starts], sampling)
    made = []
    for prompt, start, ids in zip(prompts, starts, completions, strict=True):
        text = "".join(completion_pieces(subject.tokenizer, start, ids))
        limit = min(max_new_tokens, subject.context_length - len(start.ids))
        made.append(Answer(prompt, _without_reasoning(text), len(ids), len(ids) < limit))
    return made


def _without_reasoning(text: str) -> str:
    if text.lstrip().startswith("<think>") and "</think>" in text:
        return text.partition("</think>")[2].lstrip()
    return text


def _completions(
    subject: Subject, prompts: list[list[int]], sampling: SamplingParams
) -> list[list[int]]:
    """Ids without stop tokens; prompt i, by length, draws with the i-th seed in both engines."""
    by_length = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    ordered = [prompts[i] for i in by_length]
    stop = frozenset(stop_token_ids(subject.tokenizer))
    was_training = subject.model.training
    try:
        if _batch_engine_runs(subject.model):
            made = _by_batch_engine(subject, ordered, sampling, stop)
        else:
            made = _in_lockstep(subject, ordered, sampling, stop)
    finally:
        subject.model.train(was_training)
    return [ids for _, ids in sorted(zip(by_length, made, strict=True))]


def _batch_engine_runs(model: CausalLM) -> bool:
    if model.training:  # the batch engine moves weights, which an optimizer holds
        return False
    try:
        check_supported(model.config)
    except UserError:
        return False
    return True


def _by_batch_engine(
    subject: Subject, prompts: list[list[int]], sampling: SamplingParams, stop: frozenset[int]
) -> list[list[int]]:
    model, ended = subject.model, 0
    rows = min(_ROWS, len(prompts)) or 1
    longest = max(map(len, prompts), default=0) + sampling.max_new_tokens
    # Memory for what can run at once, not for full contexts.
    tokens = rows * (min(longest, model.config.context_length) + _PAGE)
    settings = EngineConfig(
        max_running=rows, max_waiting=len(prompts) + 1, page_size=_PAGE, cache_tokens=tokens
    )
    engine = BatchEngine(model, settings)
    seed = sampling.seed or 0
    requests = [
        Request(tuple(ids), sampling.model_copy(update={"seed": seed + number}), stop)
        for number, ids in enumerate(prompts)
    ]
    made: dict[int, list[int]] = {number: [] for number in engine.add_all(requests)}
    while engine.has_work:
        for event in engine.step():
            if event.token is not None:
                made[event.request_id].append(event.token)
            ended += event.finish is not None
        subject.on_progress(ended, len(prompts))
    return list(made.values())


def _in_lockstep(
    subject: Subject, prompts: list[list[int]], sampling: SamplingParams, stop: frozenset[int]
) -> list[list[int]]:
    model = subject.model
    made: list[list[int]] = []
    for batch in _batches(prompts, model.config.context_length - sampling.max_new_tokens):
        seed = (sampling.seed or 0) + len(made)
        made += generate(model, batch, sampling.model_copy(update={"seed": seed}), stop)
        subject.on_progress(len(made), len(prompts))
    return made


def _batches(prompts: list[list[int]], roomy: int) -> Iterator[list[list[int]]]:
    """Neighbours that share a limit: all that leave room for max_new_tokens, else equally long ones."""
    batch: list[list[int]] = []
    for ids in prompts:
        shares = batch and (len(ids) <= roomy or len(ids) == len(batch[0]))
        if batch and (len(batch) == _ROWS or not shares):
            yield batch
            batch = []
        batch.append(ids)
    if batch:
        yield batch
