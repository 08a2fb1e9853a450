"""What a model writes after prompts, many at a time, until a stop string.

Takes prompts of token ids with the harness's settings; gives texts. Through the batch engine; models that it
refuses (sliding windows, lengths in the rope) are decoded by `generation.engine`, which cannot stop early.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.generation.batch.engine import BatchEngine, check_supported
from mengya.generation.batch.request import EngineConfig, Request
from mengya.generation.engine import generate
from mengya.generation.sampling import SamplingParams
from mengya.models.causal_lm import CausalLM
from mengya.tokenizer.load import stop_token_ids

MAX_NEW_TOKENS = 256  # where a task says nothing: lm_eval's HFLM.max_gen_toks
_KNOWN = {"until", "do_sample", "temperature", "top_p", "top_k", "max_length"}
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True)
class Prompt:
    """ids: cut to the context already; until: strings that end the text, not part of it."""

    ids: tuple[int, ...]
    until: tuple[str, ...]
    params: SamplingParams


def prompt_of(ids: Sequence[int], settings: Mapping[str, Any], context: int, eos: str) -> Prompt:
    """A request of the harness. What does not fit is cut on the left, as HFLM does it; a limit that leaves no
    room for a prompt (HFLM fails there) is lowered to half of the context.

    Args:
        settings: a task's generation_kwargs.

    Raises:
        UserError: a setting that is not known.
    """
    if unknown := sorted(settings.keys() - _KNOWN - set(_LENGTHS)):
        raise UserError(
            f"generation_kwargs of the task name {', '.join(unknown)}, which is not known"
        )
    length = next((settings[n] for n in _LENGTHS if settings.get(n) is not None), MAX_NEW_TOKENS)
    length = min(int(length), context // 2) if int(length) >= context else int(length)
    drawn = bool(settings.get("do_sample", float(settings.get("temperature", 0)) > 0))
    params = SamplingParams(
        max_new_tokens=length,
        temperature=float(settings.get("temperature", 1)) if drawn else 0,
        top_k=int(settings.get("top_k", 0)) if drawn else 0,
        top_p=float(settings.get("top_p", 1)) if drawn else 1,
        seed=0,
    )
    until = settings.get("until") or []
    strings = [until] if isinstance(until, str) else list(until)
    return Prompt(
        tuple(ids[-(context - length) :]),
        tuple(dict.fromkeys(s for s in (*strings, eos) if s)),
        params,
    )


class Completer:
    """Completes prompts in batches.

    Attributes:
        rows: most prompts in a batch.
    """

    def __init__(self, model: CausalLM, tokenizer: PreTrainedTokenizerFast, rows: int) -> None:
        self.rows = rows
        self._model, self._tokenizer = model, tokenizer
        self._stops = frozenset(stop_token_ids(tokenizer))
        self._engine: BatchEngine | None = None
        try:
            check_supported(model.config)
            # Without reuse of prefixes, so that a batch gives the same bytes whatever came before it.
            settings = EngineConfig(max_running=rows, max_waiting=rows, prefix_reuse=False)
            self._engine = BatchEngine(model, settings)
        except UserError:  # the other loop runs every model
            pass

    def complete(self, prompts: Sequence[Prompt]) -> list[str]:
        """At most `rows` prompts at once."""
        decode = self._decode_plainly if self._engine is None else self._decode_by_engine
        return [
            _before(self._text(ids), prompt.until)
            for ids, prompt in zip(decode(prompts), prompts, strict=True)
        ]

    def _decode_by_engine(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        engine = self._engine
        assert engine is not None
        numbers = engine.add_all([Request(p.ids, p.params, self._stops) for p in prompts])
        place = {number: at for at, number in enumerate(numbers)}
        written: list[list[int]] = [[] for _ in prompts]
        tails = [self._tail(prompt.until) for prompt in prompts]
        while engine.has_work:
            for event in engine.step():
                at = place[event.request_id]
                if event.token is None:
                    continue
                written[at].append(event.token)
                ending = self._text(written[at][-tails[at] :])
                if event.finish is None and any(s in ending for s in prompts[at].until):
                    engine.cancel(event.request_id)
        return written

    def _decode_plainly(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        written: list[list[int]] = []
        for prompt in prompts:
            written += generate(self._model, [prompt.ids], prompt.params, self._stops)
        return written

    def _tail(self, until: Sequence[str]) -> int:
        """Tokens that hold a stop string whose ends may lie inside of tokens."""
        return 3 + max((len(s.encode()) for s in until), default=0)

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def _before(text: str, until: Sequence[str]) -> str:
    """The text before the first stop string."""
    for stop in until:
        text = text.split(stop)[0]
    return text
