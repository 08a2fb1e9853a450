"""Traditional Chinese to Simplified, by OpenCC."""

from __future__ import annotations

from mengya.runtime.optional import require
from mengya.text.filters.config import SimplifyEdit


class Simplify:
    """The text in Simplified characters, and with those words when the conversion has them.

    Raises:
        UserError: OpenCC is not installed.
    """

    def __init__(self, config: SimplifyEdit) -> None:
        self._convert = require("opencc", "opencc").OpenCC(config.conversion).convert

    def __call__(self, text: str) -> str:
        """Convert a text."""
        return self._convert(text)
