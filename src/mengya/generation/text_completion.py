"""Continue plain text: the prompt is cut where its continuation is cut as well.

Takes a model, its tokenizer and texts; gives texts. Knows no chat template and no files.

Byte-level BPE merges whatever stands together often: a punctuation mark with the word after it, two words,
a character with the first byte of the next. So the last tokens of a prompt may be ones that the model never
saw before what follows, and what it then predicts begins inside a word, or inside a character. `heal` lets
the model choose: the prompt as it was cut, or a token that holds the end of the prompt and goes beyond it
(token healing, as guidance has it; over complete paths of tokens instead of one after another).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from mengya.generation.engine import generate
from mengya.generation.sampling import (
    RowSettings,
    SamplingParams,
    choose,
    row_seed,
    uniforms,
)
from mengya.models.causal_lm import CausalLM
from mengya.tokenizer.load import document_token_id, encode_texts, stop_token_ids
from mengya.tokenizer.stream import REPLACEMENT, TextStream
from mengya.tokenizer.token_text import TokenText

_WINDOW_TOKENS = 128  # before the end of the prompt, which decide about it
_DRAW = 1 << 40  # number of the draw that decides: far from those of the completion's tokens


class Start(NamedTuple):
    """Where decoding begins.

    Attributes:
        ids: of the prompt; the last one may go beyond it.
        shared: how many ids at the end hold the end of the prompt and more; 0 when none goes beyond it. They
            begin with a character.
        covered: the end of the prompt that those hold.
    """

    ids: list[int]
    shared: int = 0
    covered: str = ""


def continue_texts(
    model: CausalLM,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    params: SamplingParams,
) -> list[str]:
    """What the model writes after each text, decoded as one batch.

    Raises:
        UserError: as `generate`.
    """
    starts = [heal(model, tokenizer, ids, params) for ids in document_starts(tokenizer, texts)]
    prompts = [start.ids for start in starts]
    completions = generate(model, prompts, params, stop_token_ids(tokenizer))
    return [
        "".join(completion_pieces(tokenizer, start, ids))
        for start, ids in zip(starts, completions, strict=True)
    ]


def document_starts(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Ids of the beginnings of documents."""
    opening = document_token_id(tokenizer)
    return [[opening, *ids] for ids in encode_texts(tokenizer, list(texts))]


def completion_pieces(
    tokenizer: PreTrainedTokenizerFast, start: Start, ids: Iterable[int]
) -> Iterator[str]:
    """The text after the prompt, in pieces (complete characters, never empty).

    A character that a limit cut is left out: its first bytes alone are no text.
    """
    stream, skipped = TextStream(tokenizer), 0
    for id_ in chain(start.ids[len(start.ids) - start.shared :], ids):
        piece = stream.push(id_)
        left = min(len(start.covered) - skipped, len(piece))
        skipped += left
        if piece[left:]:
            yield piece[left:]
    if rest := stream.flush().rstrip(REPLACEMENT):
        yield rest


@torch.no_grad()
def heal(
    model: CausalLM,
    tokenizer: PreTrainedTokenizerFast,
    ids: Sequence[int],
    params: SamplingParams,
) -> Start:
    """The prompt, its end as the model would have it: greedily at temperature 0, else drawn.

    The first id stays. Only ends at which a token begins are looked at, and byte-level tokenizers alone;
    under others the prompt stays as it is. One forward pass over the end of the prompt.
    """
    ids = list(ids)
    ends = list(_ends(tokenizer, ids))
    if not ends:
        return Start(ids)
    first = max(0, len(ids) - _WINDOW_TOKENS)
    earliest = min(end.place for end in ends)
    places = torch.arange(earliest - 1, len(ids) - 1)
    device = model.lm_head.weight.device
    logits = model.decode(
        torch.tensor([ids[first:]], device=device), None, positions=(places - first).to(device)
    )[0]
    logps = logits.float().log_softmax(-1).cpu()
    path = [0.0]  # of the prompt's own ids from `earliest` on
    for row, id_ in enumerate(ids[earliest:]):
        path.append(path[-1] + logps[row, id_].item())
    ways = [torch.tensor([path[-1]])]  # the prompt as it is, then every token beyond it
    for end in ends:
        ways.append(logps[end.place - earliest, end.tokens] + path[end.place - earliest])
    chosen = _choose(torch.cat(ways), params)
    for end in ends:
        if 1 <= chosen <= len(end.tokens):
            kept = [*ids[: end.place], end.tokens[chosen - 1]]
            return Start(kept, len(kept) - end.character, end.covered)
        chosen -= len(end.tokens)
    return Start(ids)


def _choose(ways: torch.Tensor, params: SamplingParams) -> int:
    """One of some log-probabilities, by temperature, top-k, top-p and min-p."""
    plain = SamplingParams(
        temperature=params.temperature, top_k=params.top_k, top_p=params.top_p, min_p=params.min_p
    )
    seed = np.array([row_seed(params.seed)], dtype=np.uint64)
    uniform = uniforms(seed, np.array([_DRAW]))
    return int(choose(ways[None], None, RowSettings.of([plain]), uniform)[0])


class _End(NamedTuple):
    """An end of the prompt with which longer tokens begin.

    Attributes:
        place: number of the id at which it begins.
        character: number of the id, this one or one before, that begins with a character.
        covered: the text from there on.
        tokens: those that begin with the end and are longer.
    """

    place: int
    character: int
    covered: str
    tokens: list[int]


def _ends(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> Iterator[_End]:
    """The ends of the prompt at which one of its tokens begins, and that have longer tokens."""
    index = _vocabulary(tokenizer)
    raw, found = b"", []
    for place in range(len(ids) - 1, max(0, len(ids) - _WINDOW_TOKENS), -1):
        if index.text.is_added(ids[place]):
            return
        raw = index.text.bytes(ids[place]) + raw
        if longer := index.longer(raw):
            found.append((place, longer))
        elif not found and len(raw) >= index.longest:
            return
        try:
            covered = raw.decode()
        except UnicodeDecodeError:  # begins inside a character
            continue
        for start, tokens in found:
            yield _End(start, place, covered, tokens)
        found = []


class _Vocabulary:
    """Text tokens by their bytes."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.text = TokenText(tokenizer)
        ids = tokenizer.get_vocab().values() if self.text.byte_level else ()
        known = sorted((self.text.bytes(i), i) for i in ids if not self.text.is_added(i))
        self._bytes = [raw for raw, _ in known]
        self._ids = [id_ for _, id_ in known]
        self.longest = max(map(len, self._bytes), default=0)

    def longer(self, start: bytes) -> list[int]:
        """Ids of the tokens that begin with `start` and are longer."""
        low = bisect_left(self._bytes, start)
        # No byte of UTF-8 is 0xFF, so this comes after all that begin with `start`.
        high = bisect_left(self._bytes, start + b"\xff", low)
        return [
            i
            for raw, i in zip(self._bytes[low:high], self._ids[low:high], strict=True)
            if raw != start
        ]


@lru_cache(maxsize=4)
def _vocabulary(tokenizer: PreTrainedTokenizerFast) -> _Vocabulary:
    return _Vocabulary(tokenizer)
