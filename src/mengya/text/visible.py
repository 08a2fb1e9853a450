"""Text of strangers made safe to show: nothing in it steers a terminal, or reverses what stands around it."""

from __future__ import annotations

import re

# Control characters but tab and line end; marks and overrides of direction; line and paragraph separators.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)


def visible(text: str) -> str:
    """The text with every such character as a picture or by its number: ESC as `␛`, U+202E as `<U+202E>`."""
    text = text.encode("utf-8", "replace").decode()  # halves of surrogate pairs
    return _UNSAFE.sub(lambda found: _picture(ord(found[0])), text)


def _picture(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"
