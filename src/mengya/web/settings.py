"""Where a server listens and what it lets in; the API key alone comes from the environment."""

from __future__ import annotations

import ipaddress
import os

from pydantic import Field, PositiveFloat

from mengya.config import Config
from mengya.errors import UserError

KEY = "MENGYA_API_KEY"


class WebSettings(Config):
    """Address and limits of the HTTP side."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in: set MENGYA_API_KEY then."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    cors_origins: list[str] = []
    """Web pages of these origins may call the API from a browser, such as [http://localhost:3000];
    ["*"] any. None: only the page that the server itself shows."""
    allowed_hosts: list[str] = []
    """Names by which browsers may call a server that only this machine reaches and that has no key, in
    addition to localhost, 127.0.0.1 and ::1: that of a proxy which passes it on, for example. Any
    other is refused (403), so that no web page elsewhere can make its own name mean this machine."""
    max_body_mb: PositiveFloat = 4.0
    """Larger requests are refused (413)."""
    body_seconds: PositiveFloat = 60.0
    """A body that is not complete by then is refused (408)."""
    drain_seconds: float = Field(default=30.0, ge=0)
    """After SIGTERM or Ctrl-C: how long running requests may continue before they are ended."""

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine can reach `host`."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def read_api_key() -> str | None:
    """The key that clients must send, from MENGYA_API_KEY; None when it is unset or empty.

    Raises:
        UserError: it holds what no HTTP header can carry.
    """
    key = os.environ.get(KEY) or None
    if key is not None and not (key.isascii() and key.isprintable() and key == key.strip()):
        raise UserError(
            f"{KEY} holds what no HTTP header can carry: use printable ASCII, without spaces or line ends "
            "around it (a file with Windows' line ends leaves \\r at its end)"
        )
    return key
