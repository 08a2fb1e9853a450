"""Made-up conversations and preference pairs of real lengths: random token ids, no text.

The lengths are drawn from quantiles of shared/data/sft and shared/data/dpo in tokens of the zh-26m
tokenizer (at most 300 records and a tenth of each file, 4,471 conversations and 2,329 pairs), turns and
template tokens included. Gives them as our shards, and as the columns that TRL takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mengya.data.rows.datasets import PackedRows
from mengya.data.shards import ShardWriter, TokenShards

PERCENTS = (0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99)
SFT_PROMPT = (10, 13, 16, 18, 22, 27, 35, 44, 60, 102, 151, 191, 262, 438)
SFT_ANSWER = (3, 6, 15, 23, 41, 65, 91, 123, 173, 255, 337, 439, 536, 1435)
DPO_PROMPT = (9, 12, 15, 17, 20, 24, 30, 41, 70, 141, 264, 590, 1109, 2545)
DPO_CHOSEN = (3, 4, 7, 13, 27, 47, 79, 115, 169, 263, 401, 644, 928, 1387)
DPO_REJECTED = (3, 4, 5, 7, 16, 28, 50, 82, 121, 206, 325, 607, 947, 1439)
PAD, EOS, FIRST = 0, 1, 2  # token ids; words start at FIRST


@dataclass(frozen=True, slots=True)
class Turn:
    """A prompt [P] and its answers (SFT: one; DPO: chosen and rejected), which the loss is taken on."""

    prompt: np.ndarray
    answers: tuple[np.ndarray, ...]

    def documents(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(token ids, loss mask) of the prompt with each answer."""
        masks = [np.repeat([0, 1], [len(self.prompt), len(a)]) for a in self.answers]
        ids = [np.concatenate([self.prompt, a]) for a in self.answers]
        return list(zip(ids, masks, strict=True))


def draw(count: int, longest: int, vocab: int, preference: bool) -> list[Turn]:
    """Turns of which no document is longer than `longest`; longer ones are drawn again."""
    rng = np.random.default_rng(0)
    tables = [DPO_PROMPT, DPO_CHOSEN, DPO_REJECTED] if preference else [SFT_PROMPT, SFT_ANSWER]
    turns: list[Turn] = []
    while len(turns) < count:
        prompt, *answers = (int(np.interp(rng.uniform(0, 99), PERCENTS, t)) for t in tables)
        if prompt + max(answers) > longest:
            continue
        made = [np.append(rng.integers(FIRST, vocab, n - 1), EOS) for n in answers]
        turns.append(Turn(rng.integers(FIRST, vocab, prompt), tuple(made)))
    return turns


def packed_rows(turns: Sequence[Turn], size: int, vocab: int, folder: Path) -> PackedRows:
    """Shards of the turns in `folder`, packed into rows of `size` as the stages do."""
    preference = len(turns[0].answers) == 2
    writer = ShardWriter(folder, "preference" if preference else "conversation", vocab)
    for turn in turns:
        ids, masks = zip(*turn.documents(), strict=True)
        lengths = np.array([len(one) for one in ids])
        writer.add(np.concatenate(ids), lengths, np.concatenate(masks))
    writer.close()
    return PackedRows(TokenShards(folder), size)


def sft_columns(turns: Sequence[Turn]) -> dict[str, list[Any]]:
    """TRL's tokenized prompt-completion data."""
    documents = [turn.documents()[0] for turn in turns]
    return {
        "input_ids": [ids.tolist() for ids, _ in documents],
        "completion_mask": [mask.tolist() for _, mask in documents],
    }


def dpo_columns(turns: Sequence[Turn]) -> dict[str, list[str]]:
    """TRL's preference data, which must be text: `tokenizer` gives the same ids back."""

    def words(ids: np.ndarray) -> str:
        return " ".join(f"w{i}" for i in ids)

    # TRL puts the end-of-text token behind each answer itself.
    sides = {
        name: [" " + words(turn.answers[side][:-1]) for turn in turns]
        for side, name in enumerate(("chosen", "rejected"))
    }
    return {"prompt": [words(turn.prompt) for turn in turns], **sides}


def tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    """A word for every token id, separated by blanks."""
    words = {"<pad>": PAD, "<eos>": EOS, **{f"w{i}": i for i in range(FIRST, vocab)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<pad>"
    )
