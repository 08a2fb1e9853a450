"""Text that compresses so well that it must say the same again and again."""

from __future__ import annotations

from zstandard import ZstdCompressor

from mengya.text.filters.config import InformationFilter


class Information:
    """low_information."""

    def __init__(self, config: InformationFilter) -> None:
        self._config = config
        self._compressor = ZstdCompressor(level=1)

    def __call__(self, text: str) -> str | None:
        """The reason for which the text is dropped, or None."""
        data, config = text.encode("utf-8", "surrogatepass"), self._config
        if len(data) < config.min_bytes:
            return "low_information" if len(set(text)) < config.min_distinct * len(text) else None
        size = len(self._compressor.compress(data))
        return "low_information" if size < config.min_compressed * len(data) else None
