"""What a hub's package could not do, without the token."""

from __future__ import annotations

from urllib.parse import quote


class HubFailure(Exception):
    """What a hub's package could not do.

    Attributes:
        status: of the answer; None: there was none.
        said: what the server said, in one line and without the token.
        timeout: it did not answer in time.
    """

    def __init__(self, said: str, status: int | None = None, timeout: bool = False) -> None:
        super().__init__(said)
        self.status, self.said, self.timeout = status, said, timeout


def without(text: str, secret: str | None) -> str:
    """One line of `text` with the token blotted out, also as Python or an address writes it."""
    line = " ".join(text.split())
    forms = {secret, *secret.split(), repr(secret)[1:-1], quote(secret, "")} if secret else set()
    for form in sorted(forms - {""}, key=len, reverse=True):
        line = line.replace(form, "***")
    return line
