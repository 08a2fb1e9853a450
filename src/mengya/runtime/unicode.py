"""Whether a text can be written as UTF-8: Python keeps bytes that are none as halves of surrogate pairs."""

from __future__ import annotations


def is_unicode(text: str) -> bool:
    """False: it holds half of a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
