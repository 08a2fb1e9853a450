"""The numbers that a model's weights are rounded to while it is trained. Needs no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import GetJsonSchemaHandler, PositiveInt, model_validator
from pydantic_core import CoreSchema

from mengya.config import Config


class TrainedQuantization(Config):
    """Every linear layer of the decoder layers multiplies by rounded weights; `ternary` alone may stand for
    {number: ternary}.

    The optimizer keeps full weights, and the gradient passes the rounding as if it were not there
    (straight-through). Embedding, output layer, norms and routers are not rounded.
    """

    number: Literal["integer", "ternary"] = "integer"
    """integer: of `bits` bits, with a scale for each group of a row's weights. ternary: -1, 0 or 1 times one
    scale a matrix, and inputs of 8 bits with a scale for each token (BitNet b1.58, arXiv:2402.17764)."""
    bits: Literal[2, 3, 4, 8] = 2
    """integer: 2, 3, 4 or 8 (-2 to 1, -4 to 3, -8 to 7, -128 to 127, times the scale)."""
    group_size: PositiveInt | None = 32
    """integer: neighbouring weights of a row that share a scale; null: all of the row."""

    @model_validator(mode="before")
    @classmethod
    def _plain_name(cls, value: Any) -> Any:
        values = {"number": value} if isinstance(value, str) else value
        if isinstance(values, dict) and values.get("number") == "ternary":
            return {"group_size": None, **values}
        return values

    @model_validator(mode="after")
    def _one_scale(self) -> TrainedQuantization:
        if self.number == "ternary" and (self.bits != 2 or self.group_size is not None):
            raise ValueError(
                f"bits={self.bits} and group_size={self.group_size} mean nothing to ternary weights, which "
                "have one scale a matrix; write quantization=ternary alone"
            )
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"const": "ternary"}, handler.resolve_ref_schema(handler(schema))]}
