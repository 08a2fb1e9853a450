"""One figure of a checkpoint, in the form that every yardstick gives and every table, card and test reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mengya.measured.intervals import wilson

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Measurement:
    """A value with its 95 % interval.

    Attributes:
        name: yardstick/part, such as loops/greedy or bits_per_char/law; unique in an evaluation.
        value: in `unit`; a share is between 0 and 1.
        interval: 95 %; None where there is none (a count, a single pass over fixed text).
        items: how many questions, answers or documents it was averaged over; 0: nothing was measured, `note`
            says why, and `value` stands for nothing.
        unit: share, bits/char, bits/byte, nats/token, characters, tokens, points, ...
        better: which way is better; neither for a description, such as the length of answers.
        chance: what guessing gives; None where there is no such value.
        note: what a reader must know (contaminated items, prompts cut, unknown tokens), else empty.
    """

    __pydantic_config__: ClassVar = ConfigDict(allow_inf_nan=False, extra="forbid")  # of from_json

    name: str
    value: float
    interval: tuple[float, float] | None
    items: int
    unit: str
    better: Better
    chance: float | None = None
    note: str = ""

    @property
    def above_chance(self) -> bool | None:
        """Whether the interval lies on the better side of chance; None where that cannot be said."""
        if self.chance is None or self.interval is None or self.better == "neither":
            return None
        low, high = self.interval
        return low > self.chance if self.better == "higher" else high < self.chance

    @classmethod
    def share(
        cls,
        name: str,
        count: int,
        items: int,
        better: Better = "higher",
        *,
        chance: float | None = None,
        note: str = "",
    ) -> Measurement:
        """count of items, with Wilson's interval."""
        interval = wilson(count, items)
        return cls(name, count / items, interval, items, "share", better, chance, note)

    @classmethod
    def not_applicable(cls, name: str, unit: str, better: Better, why: str) -> Measurement:
        """What is said where a yardstick does not fit the model, so that nothing is scored silently."""
        return cls(name, 0.0, None, 0, unit, better, note=f"not applicable: {why}")

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        values["interval"] = list(self.interval) if self.interval else None
        return values

    @classmethod
    def from_json(cls, values: Any) -> Measurement:
        """
        Raises:
            ValueError: these are no values of `to_json`; says which.
        """
        try:
            return _FIGURE.validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "a figure"
            raise ValueError(f"{where}: {first['msg']}") from error


_FIGURE = TypeAdapter(Measurement)
