"""The beginning of a sample that is in finished shards, decoded: texts themselves are not kept by a build."""

from __future__ import annotations

from pathlib import Path

from mengya.data.prepare.outcome.examples import EXCERPT
from mengya.data.shards import TokenShards
from mengya.tokenizer.load import load_tokenizer


class KeptText:
    """Of the shards below `directory`, which are in splits or not."""

    def __init__(self, directory: Path, tokenizer: Path) -> None:
        self._directory, self._folder = directory, tokenizer

    def __call__(self, validation: bool, sample: int) -> str:
        """The beginning of a sample of train or validation; of a preference its chosen side."""
        split = self._directory / ("validation" if validation else "train")
        shards = TokenShards(split if split.is_dir() else self._directory)
        document = sample * (2 if shards.kind == "preference" else 1)
        ids = shards.tokens(document, 0, 4 * EXCERPT).tolist()
        text = load_tokenizer(self._folder).decode(ids, skip_special_tokens=True)
        assert isinstance(text, str)
        return text[:EXCERPT]
