"""The API key: from the environment only, and taken out of all that an endpoint says."""

from __future__ import annotations

import os
import re

from mengya.endpoint.config import EndpointConfig
from mengya.errors import UserError

_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
_SHORTEST = 8  # characters: a shorter "key" (none, EMPTY) is a word and stays
NO_KEY = "none"


def read_key(config: EndpointConfig) -> str:
    """The key, or "none" where none is needed.

    Raises:
        UserError: a key stands where the name of a variable belongs (it is not repeated), or none is set.
    """
    if config.key_env is None:
        return NO_KEY
    if not _NAME.fullmatch(config.key_env):
        raise UserError(
            "endpoint.key_env is the name of an environment variable in capital letters, never the key: "
            "type export OPENAI_API_KEY=... in the shell and write endpoint.key_env=OPENAI_API_KEY. If a key "
            "stood there, it is in your shell's history or recipe now: replace it"
        )
    key = os.environ.get(config.key_env, "").strip()
    if key:
        return key
    if config.is_local:
        return NO_KEY
    raise UserError(
        f"{config.base_url} needs a key, and the environment variable {config.key_env} is not set: type "
        f"export {config.key_env}=..., or write endpoint.key_env=null for an endpoint without keys"
    )


def without_key(text: str, key: str) -> str:
    """The text with the key replaced: some endpoints repeat it in their messages."""
    return text.replace(key, "[key]") if len(key) >= _SHORTEST else text
