"""The one error that a user caused and can fix; everything else is a bug and keeps its traceback."""

from __future__ import annotations

_MAX_SHOWN = 80  # characters of a value that a message quotes


class UserError(Exception):
    """Something the user can fix. The command line prints it without a traceback and exits with 2."""


def shown(value: object) -> str:
    """`value` as a message quotes it: its repr, shortened to 80 characters."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
