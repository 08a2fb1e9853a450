"""New tokens for a trained tokenizer: given ones, or words that are frequent in a domain's text.

Takes a tokenizer and strings; gives the tokenizer with more tokens. All old ids keep their meaning, and
a text without any of the new strings keeps its ids. Knows no files and no model.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from transformers import AddedToken, PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.tokenizer.load import encode_texts
from mengya.tokenizer.train import sample_pieces, train_tokenizer

# An added token is found inside words too, so a learned token must be a word wherever it stands: that
# holds for Chinese, not for letters ("art" in "party").
_CHINESE = re.compile(r"[\u4e00-\u9fff\u3400-\u4dbf]{2,}")
_CANDIDATES = 8  # looked at for each token wanted


def extend_tokenizer(
    tokenizer: PreTrainedTokenizerFast, tokens: Sequence[str], special: bool = False
) -> tuple[PreTrainedTokenizerFast, list[list[int]]]:
    """A tokenizer with `tokens` after all others, and what each was written with before.

    Args:
        special: control tokens, such as tags of a template; a person's text never becomes one.

    Raises:
        UserError: an empty token, one given twice, or one that the tokenizer has as one token already; or
            words for a tokenizer that writes a space before every piece of text.
    """
    twice = [token for token, count in Counter(tokens).items() if count > 1]
    if twice or "" in tokens:
        raise UserError(f"tokens must be different and not empty; fix {twice or ['']}")
    if (
        not special
        and '"Prepend"' in (tokenizer.backend_tokenizer.to_str().partition('"model"')[0])
    ):
        raise UserError(
            "the tokenizer writes a space before every piece of text (Llama's does), so text behind an added "
            "word would get one; add control tokens alone, with special=true and without sources, or join "
            "vocabularies with `mengya tokenizer convert`, for a new model"
        )
    before = encode_texts(tokenizer, list(tokens))
    vocabulary = tokenizer.get_vocab()
    if known := [
        t for t, ids in zip(tokens, before, strict=True) if t in vocabulary or len(ids) == 1
    ]:
        raise UserError(
            f"{len(known)} of the tokens are one token already, such as {known[0]!r}; leave them out"
        )
    extended = copy.deepcopy(tokenizer)
    first = len(tokenizer)
    new: list[str | AddedToken] = [AddedToken(t, normalized=False, special=special) for t in tokens]
    extended.add_tokens(new, special_tokens=special)
    ids = extended.convert_tokens_to_ids(list(tokens))
    if ids != list(range(first, first + len(tokens))):
        got = ids[0] if isinstance(ids, list) and ids else first
        raise UserError(
            f"the tokenizer's ids have gaps: the first new token would get {got}, not {first}; "
            f"use a folder whose ids are 0 to {first - 1}"
        )
    return extended, before


def learn_tokens(
    tokenizer: PreTrainedTokenizerFast,
    texts: Iterable[str],
    count: int,
    *,
    max_characters: int = 5_000_000,
    show_progress: bool = True,
) -> list[str]:
    """The Chinese words whose being one token shortens `texts` most, best first, at most `count`.

    Candidates are the tokens of a BPE trained on the texts; a word saves one token less than it takes
    now, each time that this BPE uses it.
    """
    pieces = sample_pieces(texts, max_characters)
    of_domain = train_tokenizer(
        pieces,
        512 + _CANDIDATES * count,
        max_characters=max_characters,
        show_progress=show_progress,
    )
    uses = Counter(i for ids in encode_texts(of_domain, pieces) for i in ids)
    candidates = {str(of_domain.decode([i])): n for i, n in uses.items() if n > 1}
    words = [word for word in candidates if _CHINESE.fullmatch(word)]
    saved = {
        word: candidates[word] * (len(ids) - 1)
        for word, ids in zip(words, encode_texts(tokenizer, words), strict=True)
        if len(ids) > 1
    }
    return sorted(saved, key=lambda word: (-saved[word], word))[:count]
