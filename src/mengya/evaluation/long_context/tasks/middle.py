"""A prompt that is too long, cut in the middle as LongBench does: beginning and end hold the instructions."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import Tokenizer


def cut_middle(
    text: str, tokenizer: Tokenizer, most: int, count: Callable[[str], int]
) -> tuple[str, int]:
    """The text with at most `most` tokens, and how many were taken out of its middle; 0 when it fits.

    Cut between characters, of which a token may hold a part.

    Args:
        count: tokens of a text as the model will see it, template included.

    Raises:
        ValueError: not even an empty text fits.
    """
    tokens = count(text)
    if tokens <= most:
        return text, 0
    encoding = tokenizer.encode(text, add_special_tokens=False)
    kept = most - (tokens - len(encoding.ids))  # without those of the template
    while kept > 1:
        half = kept // 2
        first = text[: encoding.offsets[half - 1][1]]
        cut = first + text[max(encoding.offsets[-half][0], len(first)) :]
        seen = count(cut)
        if seen <= most:
            return cut, len(encoding.ids) - 2 * half
        kept -= seen - most  # where the halves meet, other tokens may come about
    raise ValueError(f"{tokens} tokens cannot be cut to {most}")
