"""What a request holds and has no effect: found by comparing what was sent with what was taken.

One policy for all kinds of clients: what changes the answer is refused, what does not is ignored, and
the answer names it.
"""

from __future__ import annotations

from typing import Annotated, Any, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, PrivateAttr, model_validator
from pydantic.fields import FieldInfo
from starlette.responses import Response

from mengya.serving.api.protocol import ApiBody, ApiModel
from mengya.web.gate import IGNORED

_LONGEST = 4096  # of a header; proxies and clients take 8 KiB in all


class _WithoutEffect:
    """Mark of a field that is taken and has no effect."""


NoEffect = Annotated[Any, _WithoutEffect()]


class MessageModel(ApiModel):
    """Part of a message: what it does not know is ignored, since clients send replies of other servers
    back as they came; the answer names it."""

    model_config = ConfigDict(extra="ignore")


class NotingRequest(ApiBody):
    """A request that knows which of its fields, and fields within them, have no effect."""

    _ignored: list[str] = PrivateAttr(default_factory=list)

    @model_validator(mode="wrap")
    @classmethod
    def _note_what_is_ignored(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        request = handler(value)
        request._ignored = ignored_in(value, request)
        return request

    @property
    def ignored(self) -> list[str]:
        """Paths of what was sent and has no effect."""
        return self._ignored


def ignored_in(sent: Any, taken: Any, path: str = "") -> list[str]:
    """Paths of the keys of `sent` that its model `taken` has no field or no use for."""
    if isinstance(sent, list) and isinstance(taken, list):
        return [
            name
            for i, pair in enumerate(zip(sent, taken, strict=True))
            for name in ignored_in(*pair, _below(path, i))
        ]
    if not isinstance(sent, dict) or not isinstance(taken, BaseModel):
        return []
    fields = {field.alias or name: name for name, field in type(taken).model_fields.items()}
    found = []
    for key, value in sent.items():
        if value is None:
            continue
        name = fields.get(key)
        if name is None or _has_no_effect(type(taken).model_fields[name]):
            found.append(_below(path, key))
        else:
            found += ignored_in(value, getattr(taken, name), _below(path, key))
    return found


def _has_no_effect(field: FieldInfo) -> bool:
    return any(isinstance(mark, _WithoutEffect) for mark in field.metadata)


def _below(path: str, key: str | int) -> str:
    return f"{path}.{key}" if path else str(key)


def name_ignored(response: Response, ignored: list[str]) -> None:
    """Write into a header what had no effect."""
    if ignored:
        text = "; ".join(ignored)[:1000]
        while len(shown := quote(text, safe=" ;:.,'\"()[]_-")) > _LONGEST:
            text = text[: len(text) // 2]
        response.headers[IGNORED] = shown.strip()  # a header's value cannot end in a space
