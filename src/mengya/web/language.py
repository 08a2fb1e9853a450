"""The language of a page that is written to a file: that of the terminal it is written from.

Pages that a server shows ask the browser instead.
"""

from __future__ import annotations

import os
from typing import Literal

_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set counts, as in POSIX


def page_language() -> Literal["zh", "en"]:
    """zh when the locale is Chinese, else en; where there is one, LANGUAGE is asked first, as in gettext."""
    locale = next((value for name in _VARIABLES if (value := os.environ.get(name))), "")
    if locale.partition(".")[0] not in ("", "C", "POSIX"):
        locale = os.environ.get("LANGUAGE") or locale
    return "zh" if locale.lower().startswith("zh") else "en"
