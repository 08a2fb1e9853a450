"""How the tokenizers that mengya trains split text into words, inside of which BPE merges bytes."""

from __future__ import annotations

from tokenizers import Regex, pre_tokenizers

# From Qwen2 (transformers, tokenization_qwen2.py): contractions, letters, single digits,
# punctuation, line ends, spaces.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def word_split() -> pre_tokenizers.PreTokenizer:
    """Words by the pattern, their bytes as characters."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
