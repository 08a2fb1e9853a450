"""How positions become angles, in the words of transformers' `rope_parameters`. Needs no torch.

Takes the scaling's name and numbers; gives a checked `RopeParameters` and the factors that follow from
them. rope_theta stays a field of the model itself, as design and recipes write it.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from mengya.config import Config

RopeType = Literal["default", "linear", "dynamic", "yarn", "longrope", "clex"]
_LEARNED = ("clex",)
# Fields that not every type reads.
_YARN = (
    "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "mscale",
    "mscale_all_dim", "truncate",
)  # fmt: skip
_LONGROPE = ("original_max_position_embeddings", "attention_factor", "long_factor", "short_factor")
_READ_BY: dict[str, tuple[str, ...]] = {
    "yarn": _YARN, "longrope": _LONGROPE, "clex": ("original_max_position_embeddings",),
}  # fmt: skip


class RopeParameters(Config):
    """Rotary positions, and how they are scaled for a longer context than was trained.

    linear: positions divided by factor (Chen et al. 2023, arXiv:2306.15595). dynamic: a larger
    rope_theta once a text is longer than max_position_embeddings (dynamic NTK). yarn: fast pairs keep
    their frequency, slow ones are divided by factor (Peng et al. 2023, arXiv:2309.00071). longrope:
    each pair is divided by a number of its own (Ding et al. 2024, arXiv:2402.13753). clex: the stretch
    of each pair is learned, for every factor (Chen et al. 2023, arXiv:2310.16450); not in transformers.
    """

    rope_type: RopeType = "default"
    """default, linear, dynamic (NTK), yarn, longrope or clex."""
    factor: float | None = Field(default=None, ge=1)
    """How many times longer the context becomes, at most; needed by all types but default and longrope,
    where it is max_position_embeddings / original_max_position_embeddings."""
    original_max_position_embeddings: PositiveInt | None = None
    """yarn, longrope, clex: the context that the model was trained with before."""
    beta_fast: PositiveFloat = 32.0
    """yarn: pairs that rotate more often than this over the original context keep their frequency."""
    beta_slow: PositiveFloat = 1.0
    """yarn: pairs that rotate less often than this are interpolated."""
    attention_factor: float | None = Field(default=None, gt=0)
    """yarn, longrope: cosines and sines are multiplied by this; null: 0.1 ln(factor) + 1 (yarn), or
    sqrt(1 + ln(factor) / ln(original_max_position_embeddings)) (longrope)."""
    long_factor: list[PositiveFloat] | None = None
    """longrope: what each pair's frequency is divided by in texts longer than the trained context."""
    short_factor: list[PositiveFloat] | None = None
    """longrope: the same for texts within it."""
    mscale: float | None = Field(default=None, gt=0)
    """yarn of DeepSeek: with mscale_all_dim, weight of ln(factor) in the attention factor."""
    mscale_all_dim: float | None = Field(default=None, gt=0)
    """yarn of DeepSeek: with MLA it also scales the scores."""
    truncate: bool = True
    """yarn: round the edges of the ramp to integers."""
    partial_rotary_factor: float = Field(default=1.0, gt=0, le=1)
    """Share of each head that is rotated, from its start; below 1 only in Glm4Moe."""

    @model_validator(mode="before")
    @classmethod
    def _no_theta(cls, values: Any) -> Any:
        if isinstance(values, dict) and "rope_theta" in values:
            raise ValueError(
                f"rope_theta={values['rope_theta']} belongs to the model, not to rope_parameters; "
                "write model.rope_theta"
            )
        return values

    @model_validator(mode="after")
    def _possible(self) -> RopeParameters:
        scaled = self.rope_type != "default"
        if scaled and self.factor is None and self.rope_type != "longrope":
            raise ValueError(f"rope_type={self.rope_type} needs factor; write factor=4 for 4 times")
        if not scaled and self.factor is not None:
            raise ValueError(
                f"factor={self.factor} does nothing with rope_type=default; "
                "write rope_type=linear, dynamic, yarn or clex"
            )
        if self.rope_type in _READ_BY and self.original_max_position_embeddings is None:
            raise ValueError(
                f"rope_type={self.rope_type} needs original_max_position_embeddings, the context trained "
                "before"
            )
        if self.rope_type == "longrope" and not (self.long_factor and self.short_factor):
            raise ValueError(
                "rope_type=longrope needs long_factor and short_factor, one number a pair"
            )
        if self.beta_fast <= self.beta_slow:
            raise ValueError(
                f"beta_fast={self.beta_fast} must be more than beta_slow={self.beta_slow}; "
                "32 and 1 are usual"
            )
        read = _READ_BY.get(self.rope_type, ())
        fields = type(self).model_fields
        idle = [
            name
            for name in dict.fromkeys(_YARN + _LONGROPE)
            if name not in read and getattr(self, name) != fields[name].default
        ]
        if idle:
            fitting = [kind for kind, names in _READ_BY.items() if idle[0] in names]
            raise ValueError(
                f"{', '.join(idle)} does nothing with rope_type={self.rope_type}; "
                f"remove it or write rope_type={' or '.join(fitting)}"
            )
        return self

    def with_factor(self, max_position_embeddings: int) -> RopeParameters:
        """These, with the factor that transformers takes for longrope where none is given."""
        original = self.original_max_position_embeddings
        if self.rope_type != "longrope" or self.factor is not None or original is None:
            return self
        # Below 1 the context itself is wrong, which is said with the model's other problems.
        return self.model_copy(update={"factor": max(1.0, max_position_embeddings / original)})

    @property
    def amplitude(self) -> float:
        """What YaRN and LongRoPE multiply cosines and sines by, so that scores keep their spread; else 1."""
        if self.rope_type not in ("yarn", "longrope"):
            return 1.0
        if self.attention_factor is not None:
            return self.attention_factor
        if self.rope_type == "longrope":
            factor, original = self.factor, self.original_max_position_embeddings
            assert factor is not None and original is not None  # `with_factor` of a ModelConfig
            return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
        if self.mscale and self.mscale_all_dim:
            return self._mscale(self.mscale) / self._mscale(self.mscale_all_dim)
        return self._mscale(1.0)

    @property
    def mla_score_factor(self) -> float:
        """What DeepSeek's MLA multiplies the scores by under YaRN; else 1."""
        return self._mscale(self.mscale_all_dim) ** 2 if self.mscale_all_dim else 1.0

    @property
    def learned(self) -> bool:
        """Whether frequencies are trained: then no class of transformers holds the model."""
        return self.rope_type in _LEARNED

    @property
    def depends_on_length(self) -> bool:
        """Whether the angle of one position may change with the length of its text."""
        return self.rope_type in ("dynamic", "longrope", *_LEARNED)

    def _mscale(self, weight: float) -> float:
        assert self.factor is not None  # only YaRN asks, whose factor is checked
        return 0.1 * weight * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0

    def to_hf(self, rope_theta: float, partial: bool) -> dict[str, Any]:
        """transformers' dictionary: what this type reads and nothing else.

        Args:
            partial: the class reads partial_rotary_factor (and has a default of its own for it).
        """
        values: dict[str, Any] = {"rope_type": self.rope_type, "rope_theta": rope_theta}
        if self.factor is not None:
            values["factor"] = self.factor
        read = _READ_BY.get(self.rope_type, ())
        values |= {name: v for name in read if (v := getattr(self, name)) is not None}
        if partial:
            values["partial_rotary_factor"] = self.partial_rotary_factor
        return values


def rope_from_hf(values: dict[str, Any], max_position_embeddings: int) -> dict[str, Any]:
    """The fields of `RopeParameters` out of transformers' dictionary, for its validation."""
    rope = {
        name: value
        for name, value in values.items()
        if name not in ("rope_theta", "type") and value is not None
    }
    original = rope.get("original_max_position_embeddings")
    if rope.get("rope_type") in ("yarn", "longrope") and original and "factor" not in rope:
        rope["factor"] = max_position_embeddings / original
    elif rope.get("rope_type") == "default":
        rope.pop("factor", None)
    return rope
