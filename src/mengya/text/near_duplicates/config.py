"""The settings of near-duplicates."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from mengya.config import Config

# What a method does not use.
_OTHER = {"minhash": ("distance",), "simhash": ("threshold", "permutations")}


class NearDuplicateConfig(Config):
    action: Literal["together", "drop", "ignore"] = "together"
    """What is done with a sample that nearly equals an earlier one. together: it is kept in the same split as
    that one, which needs validation_fraction above 0 and else does nothing; drop: it is left out; ignore:
    nothing, and validation may hold texts that training has seen with a few characters changed."""
    method: Literal["minhash", "simhash"] = "minhash"
    """minhash: by the share of common character n-grams; simhash: by 64 bits, which takes a thirtieth of the
    disk and finds only what differs in very few characters."""
    threshold: float = Field(default=0.85, ge=0.5, le=1)
    """minhash: the Jaccard similarity of their sets of character n-grams from which two texts are near."""
    permutations: int = Field(default=256, ge=64, le=1024)
    """minhash: bytes of a signature; more make the estimate of the similarity sharper."""
    distance: int = Field(default=3, ge=0, le=3)
    """simhash: in how many of 64 bits two near texts may differ."""
    ngram: int = Field(default=5, ge=1, le=20)
    """Characters of an n-gram, white space and case left out."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            raise ValueError("write near_duplicates=drop, together or ignore")  # not yes, no, null
        return {"action": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _of_the_method(self) -> NearDuplicateConfig:
        other = _OTHER[self.method]
        if given := [name for name in other if name in self.model_fields_set]:
            names = " and ".join(given)
            raise ValueError(f"method={self.method} does not use {names}; leave it out")
        return self

    def settings(self) -> dict[str, Any]:
        """Those that change anything, as JSON."""
        if self.action == "ignore":
            return {"action": "ignore"}
        return self.model_dump(mode="json", exclude=set(_OTHER[self.method]))

    @property
    def signature_bytes(self) -> int:
        """Bytes of the signature of one text."""
        return self.permutations if self.method == "minhash" else 8
